//! What no policy can beat that does not know the future. Owns the bound; plays no requests.
//!
//! The requests of these streams are independent of one another, so all that a policy can learn of
//! a key is how often it is asked for. A cache that knew this from the beginning would hold the
//! keys with the most requests per byte: the fractional knapsack, which bounds the hit ratio of
//! every policy that decides by the past (N. Panigrahy, P. Nain, G. Neglia and D. Towsley, "A New
//! Upper Bound on Cache Hit Probability for Non-anticipative Caching Policies", ACM TOMPECS 7,
//! 2022; the hazard rate of a key is here its share of the requests). Lifetimes are left out: with
//! them hits only become fewer, so it remains a bound.

use crate::population::Population;
use crate::stream::StreamSpec;

/// The highest hit ratio in `limit_bytes`, if an item costs `overhead_bytes` beside its content.
pub(super) fn hit_ratio(
    stream: &StreamSpec,
    population: &Population,
    overhead_bytes: usize,
    limit_bytes: u64,
) -> f64 {
    let bytes = |id: u64| {
        (population.key_bytes(id) + population.value_bytes(id) + overhead_bytes).max(1) as f64
    };
    let shares = stream.shares(population.keys());
    let mut items: Vec<(f64, f64)> = (0..).map(bytes).zip(shares).collect();
    items.sort_by(|a, b| (b.1 / b.0).total_cmp(&(a.1 / a.0)));
    let mut free_bytes = limit_bytes as f64;
    let mut hits = 0.0;
    for (bytes, share) in items {
        if bytes > free_bytes {
            return hits + share * free_bytes / bytes;
        }
        free_bytes -= bytes;
        hits += share;
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Popularity;

    #[test]
    fn the_bound_is_the_share_of_what_fits() {
        let population = Population::new(10, "16".parse().unwrap(), "84".parse().unwrap()).unwrap();
        let uniform = StreamSpec { popularity: Popularity::Uniform, once: 0.0, seed: 1 };
        let once = StreamSpec { once: 0.3, ..uniform };
        let zipf = StreamSpec { popularity: Popularity::Zipf(1.0), ..uniform };
        let total: f64 = (1..=10).map(|rank| 1.0 / f64::from(rank)).sum();
        for (stream, overhead, limit, expected) in [
            (uniform, 0, 0, 0.0),
            (uniform, 0, 250, 0.25),
            (uniform, 150, 250, 0.1),
            (uniform, 0, 5_000, 1.0),
            (once, 0, 500, 0.35),
            (zipf, 0, 200, 1.5 / total),
        ] {
            let found = hit_ratio(&stream, &population, overhead, limit);
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        }
    }
}
