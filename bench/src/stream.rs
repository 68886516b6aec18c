//! Which key is asked for next. Owns the sequence of key ids of one load thread, of a hit-ratio
//! stream, or of the simulator; never looks at replies, so that a stream depends on its seed only.

use std::str::FromStr;

use crate::production::Production;
use crate::random::Random;
use crate::zipf::Zipf;

/// How popularity is spread over the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    /// Every key equally often.
    Uniform,
    /// Zipf with this exponent.
    Zipf(f64),
    /// As in a production cache.
    Production(&'static Production),
    /// Key after key in order of their ids, round and round: for filling.
    Sequential,
}

impl FromStr for Popularity {
    type Err = String;

    /// `uniform`, `sequential` or `zipf:0.99`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "sequential" => Ok(Self::Sequential),
            Some(("zipf", exponent)) => match exponent.parse() {
                Ok(exponent) if exponent > 0.0 => Ok(Self::Zipf(exponent)),
                _ => Err(format!("Zipf exponent \"{exponent}\" is not a positive number")),
            },
            _ => Err(format!("\"{text}\": say uniform, sequential or zipf:0.99")),
        }
    }
}

/// What determines a stream, apart from the number of keys.
#[derive(Clone, Copy, Debug)]
pub struct StreamSpec {
    /// Popularity of the keys of the set.
    pub popularity: Popularity,
    /// Share of requests, 0 to 1, for keys outside the set that are never asked for again.
    pub once: f64,
    /// Equal seeds give equal streams.
    pub seed: u64,
}

impl StreamSpec {
    /// The share of requests for each key of a set of so many, by id.
    pub fn shares(&self, keys: u64) -> Vec<f64> {
        let weight = |rank: u64| match self.popularity {
            Popularity::Uniform | Popularity::Sequential => 1.0,
            Popularity::Zipf(exponent) => ((rank + 1) as f64).powf(-exponent),
            Popularity::Production(_) => panic!("the shares of a production cache are not needed"),
        };
        let total: f64 = (0..keys).map(weight).sum();
        let mut shares = vec![0.0; keys as usize];
        for rank in 0..keys {
            shares[scatter(rank, keys) as usize] = (1.0 - self.once) * weight(rank) / total;
        }
        shares
    }
}

/// An endless sequence of key ids.
#[derive(Clone, Debug)]
pub struct Stream {
    keys: u64,
    popularity: Sampler,
    once: f64,
    once_next: u64,
    once_step: u64,
    random: Random,
}

#[derive(Clone, Debug)]
enum Sampler {
    Uniform,
    Zipf(Zipf),
    Production(&'static Production),
    Sequential { next: u64, step: u64 },
}

/// Prime, below 2^32 and far from a simple fraction of it (Knuth's multiplicative constant).
const SCATTER: u64 = 2_654_435_761;

impl Stream {
    /// The part numbered `part` of `parts` of the stream over ids `0..keys`. Parts draw from
    /// different seeds; keys asked for once, and sequential keys, are dealt out among the parts.
    pub fn new(spec: &StreamSpec, keys: u64, part: u64, parts: u64) -> Self {
        assert!(keys >= 1, "a stream needs keys");
        assert!(keys < SCATTER, "scatter is one-to-one only below its multiplier");
        assert!(part < parts, "part {part} of {parts}");
        let popularity = match spec.popularity {
            Popularity::Uniform => Sampler::Uniform,
            Popularity::Zipf(exponent) => Sampler::Zipf(Zipf::new(keys, exponent)),
            Popularity::Production(cache) => Sampler::Production(cache),
            Popularity::Sequential => Sampler::Sequential { next: part, step: parts },
        };
        Self {
            keys,
            popularity,
            once: spec.once,
            once_next: keys + part,
            once_step: parts,
            random: Random::new(spec.seed.wrapping_add(part)),
        }
    }

    /// The id of the next key.
    #[inline]
    pub fn next_id(&mut self) -> u64 {
        if self.once > 0.0 && self.random.unit() < self.once {
            let id = self.once_next;
            self.once_next += self.once_step;
            return id;
        }
        match &mut self.popularity {
            Sampler::Uniform => self.random.below(self.keys),
            Sampler::Zipf(zipf) => scatter(zipf.sample(&mut self.random) - 1, self.keys),
            Sampler::Production(cache) => scatter(cache.sample(&mut self.random), self.keys),
            Sampler::Sequential { next, step } => {
                let id = *next % self.keys;
                *next = next.wrapping_add(*step);
                id
            }
        }
    }

    /// The id of a key that was never stored.
    #[inline]
    pub fn absent_id(&mut self) -> u64 {
        self.keys + self.random.below(self.keys)
    }

    /// Random bits for choices beside the key, from the same seed.
    #[inline]
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

/// Spreads ranks over ids one-to-one. Without it the popular keys would also be neighbours in the
/// order of filling, and thus in the memory of a server that stores items in order of arrival.
#[inline]
fn scatter(rank: u64, keys: u64) -> u64 {
    rank * SCATTER % keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(popularity: Popularity, once: f64, part: u64, parts: u64) -> Stream {
        Stream::new(&StreamSpec { popularity, once, seed: 5 }, 1000, part, parts)
    }

    #[test]
    fn popularity_parses_or_says_why_not() {
        assert_eq!("zipf:0.99".parse(), Ok(Popularity::Zipf(0.99)));
        assert_eq!("uniform".parse(), Ok(Popularity::Uniform));
        for wrong in ["", "zipf", "zipf:", "zipf:0", "zipf:-1", "normal"] {
            assert!(wrong.parse::<Popularity>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn scatter_is_one_to_one() {
        let mut seen = vec![false; 1000];
        (0..1000).for_each(|rank| seen[scatter(rank, 1000) as usize] = true);
        assert!(seen.iter().all(|&reached| reached));
    }

    #[test]
    fn equal_seeds_repeat() {
        let draw = || {
            let mut stream = stream(Popularity::Zipf(1.0), 0.3, 0, 1);
            (0..1000).map(|_| stream.next_id()).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }

    #[test]
    fn keys_asked_once_are_outside_the_set_and_never_repeat() {
        let mut once = Vec::new();
        for part in 0..2 {
            let mut stream = stream(Popularity::Uniform, 0.3, part, 2);
            let ids = (0..10_000).map(|_| stream.next_id());
            once.extend(ids.filter(|&id| id >= 1000));
        }
        let count = once.len();
        assert!((5_700..6_300).contains(&count), "{count}");
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), count);
    }

    #[test]
    fn shares_are_those_of_the_stream() {
        const DRAWS: u32 = 200_000;
        let spec = StreamSpec { popularity: Popularity::Zipf(1.0), once: 0.3, seed: 5 };
        let shares = spec.shares(1000);
        assert!((shares.iter().sum::<f64>() - 0.7).abs() < 1e-9);
        let mut stream = Stream::new(&spec, 1000, 0, 1);
        let mut seen = vec![0_u32; 1000];
        for id in (0..DRAWS).map(|_| stream.next_id()) {
            seen.get_mut(id as usize).into_iter().for_each(|count| *count += 1);
        }
        for (seen, share) in seen.into_iter().zip(shares) {
            let expected = share * f64::from(DRAWS);
            // Six standard deviations of a Poisson count.
            assert!(
                (f64::from(seen) - expected).abs() < 6.0 * expected.sqrt(),
                "{seen} {expected}"
            );
        }
    }

    #[test]
    fn sequential_parts_cover_every_key_once() {
        let mut ids: Vec<u64> = Vec::new();
        for part in 0..4 {
            let mut stream = stream(Popularity::Sequential, 0.0, part, 4);
            ids.extend((0..250).map(|_| stream.next_id()));
        }
        ids.sort_unstable();
        assert_eq!(ids, (0..1000).collect::<Vec<u64>>());
    }
}
