//! Popularity and sizes of production caches, as CacheLib's configurations of its benchmark give
//! them: buckets of objects that share requests, and ranges of sizes. Owns the files' format and
//! how a bucket or a size is drawn; the files themselves are an argument.
//!
//! Scaled down by dividing the objects of each bucket, at least one of which stays, and keeping the
//! requests an object gets. A size is drawn once for a key, from its number.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::random::{Random, scale};

/// Popularity and sizes of one cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Production {
    /// The name of its files.
    pub name: String,
    /// Objects, of those asked for more than once.
    pub objects: u64,
    /// Share of requests for objects never asked for again.
    pub once: f64,
    /// For each bucket, the requests for it and those before, the first object, and how many.
    buckets: Vec<(f64, u64, u64)>,
    /// For each range of sizes, the objects in it and those before, and its lower and upper end.
    sizes: Vec<(u64, usize, usize)>,
}

impl Production {
    /// The caches in a folder, each scaled down to about so many objects.
    pub fn read_all(folder: &Path, objects: u64) -> Result<Vec<Self>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".pop.json").map(str::to_owned));
        }
        names.sort();
        names.into_iter().map(|name| Self::read(folder, name, objects)).collect()
    }

    fn read(folder: &Path, name: String, objects: u64) -> Result<Self> {
        let open = |suffix: &str| -> Result<Value> {
            let text = fs::read_to_string(folder.join(format!("{name}.{suffix}.json")))?;
            Ok(serde_json::from_str(&text)?)
        };
        let (popularity, sizes) = (open("pop")?, open("sizes")?);
        let counts = numbers(&popularity, "popularityBuckets")?;
        let weights = numbers(&popularity, "popularityWeights")?;
        let all: f64 = counts.iter().sum();
        let (mut first, mut requests, mut buckets) = (0, 0.0, Vec::new());
        for (count, weight) in counts.iter().zip(&weights) {
            let kept = (count * objects as f64 / all).round().max(1.0);
            requests += weight * kept / count;
            buckets.push((requests, first, kept as u64));
            first += kept as u64;
        }
        let (mut before, mut low, mut ranges) = (0, 1, Vec::new());
        let upper_ends = numbers(&sizes, "valSizeRange")?;
        for (high, count) in upper_ends.iter().zip(numbers(&sizes, "valSizeRangeProbability")?) {
            before += count as u64;
            ranges.push((before, low, *high as usize));
            low = *high as usize + 1;
        }
        let once = popularity["oneHits"].as_f64().unwrap_or(0.0);
        Ok(Self { name, objects: first, once, buckets, sizes: ranges })
    }

    /// The object asked for next.
    pub fn sample(&self, random: &mut Random) -> u64 {
        let all = self.buckets.last().map_or(0.0, |bucket| bucket.0);
        let wanted = random.unit() * all;
        let at = self.buckets.partition_point(|bucket| bucket.0 <= wanted);
        let (_, first, count) = self.buckets[at.min(self.buckets.len() - 1)];
        first + random.below(count)
    }

    /// The size that `bits`, 64 random bits, stand for.
    pub fn size(&self, bits: u64) -> usize {
        let all = self.sizes.last().map_or(0, |range| range.0);
        let wanted = scale(bits, all);
        let at = self.sizes.partition_point(|range| range.0 <= wanted);
        let (_, low, high) = self.sizes[at];
        low + scale(crate::random::mix(bits), (high - low + 1) as u64) as usize
    }

    /// The largest size there is.
    pub fn size_max(&self) -> usize {
        self.sizes.iter().map(|range| range.2).max().unwrap_or(1)
    }
}

fn numbers(json: &Value, field: &str) -> Result<Vec<f64>> {
    let list = json[field].as_array().ok_or_else(|| format!("no list \"{field}\""))?;
    let numbers = list.iter().map(|number| number.as_f64().ok_or("not a number".into()));
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_sizes_are_drawn_as_often_as_the_files_say() {
        let folder = std::env::temp_dir().join(format!("bench-production-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let popularity = r#"{"oneHits": 0.25, "popularityBuckets": [1, 9],
            "popularityWeights": [30, 70]}"#;
        fs::write(folder.join("a.pop.json"), popularity).unwrap();
        let sizes = r#"{"valSizeRange": [10, 100], "valSizeRangeProbability": [3, 1]}"#;
        fs::write(folder.join("a.sizes.json"), sizes).unwrap();
        let read = Production::read_all(&folder, 100);
        fs::remove_dir_all(&folder).unwrap();
        let [cache] = &read.unwrap()[..] else { panic!("one cache") };
        assert_eq!((cache.name.as_str(), cache.objects, cache.once), ("a", 100, 0.25));
        let mut random = Random::new(1);
        let drawn: Vec<u64> = (0..10_000).map(|_| cache.sample(&mut random)).collect();
        assert!(drawn.iter().all(|object| *object < 100));
        let first = drawn.iter().filter(|object| **object < 10).count();
        assert!((2_800..3_200).contains(&first), "{first}");
        let sizes: Vec<usize> = (0..10_000).map(|_| cache.size(random.bits())).collect();
        assert!(sizes.iter().all(|size| (1..=100).contains(size)));
        let small = sizes.iter().filter(|size| **size <= 10).count();
        assert!((7_200..7_800).contains(&small), "{small}");
    }
}
