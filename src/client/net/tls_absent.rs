//! Stands where `tls` would be without the feature of that name: there are no sessions.

use crate::client::error::Error;
use crate::client::placement::node::Node;
use std::io;

/// Nobody has one.
#[derive(Debug, Clone)]
pub(in crate::client) enum Prepared {}

impl Prepared {
    pub(crate) fn session(&self, _node: &Node) -> Result<Option<Session>, Error> {
        match *self {}
    }
}

/// Nobody has one.
#[derive(Debug)]
pub(in crate::client) enum Session {}

impl Session {
    pub(crate) fn handshake<I>(&mut self, _io: &mut I) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn send<I>(&mut self, _io: &mut I, _bytes: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn owes(&self) -> bool {
        match *self {}
    }

    pub(crate) fn flush<I>(&mut self, _io: &mut I) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn receive<I>(&mut self, _io: &mut I, _room: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn holds(&mut self) -> bool {
        match *self {}
    }

    pub(crate) fn is_quiet<I>(&mut self, _io: &mut I) -> bool {
        match *self {}
    }
}

pub(in crate::client) fn cause(_error: &io::Error) -> Option<String> {
    None
}
