//! What stands in for the near cache without the feature `near`: nothing is kept.

use crate::client::config::Config;
use crate::client::operation::Encoded;
use crate::client::placement::key::WireKey;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug)]
pub(in crate::client) struct Near;

/// There is none.
#[derive(Debug)]
pub(in crate::client) enum Ticket {}

/// There is none.
#[derive(Debug)]
pub(in crate::client) enum Writing {}

impl Near {
    pub(super) fn new(_config: &Config) -> Self {
        Self
    }

    pub(super) fn is_on(&self) -> bool {
        false
    }

    pub(super) fn get(&self, _key: &WireKey<'_>, _now: Instant) -> Option<Arc<Encoded>> {
        None
    }

    pub(super) fn ask(&self, _key: &WireKey<'_>) -> Option<Ticket> {
        None
    }

    pub(super) fn keep(&self, ticket: Ticket, _value: Encoded, _now: Instant) {
        match ticket {}
    }

    pub(super) fn writing(&self, _key: &WireKey<'_>) -> Option<Writing> {
        None
    }

    pub(super) fn clear(&self) {}
}
