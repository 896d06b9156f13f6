//! Mirrors live HTTP traffic to a shadow, compares the answers, and says whether the new version may ship.
//!
//! The way of a byte through the crate, one stage a module (`ARCHITECTURE.md` draws it):
//! [`capture`] → [`tcp`] → [`http`] → [`exchange::Exchange`] → [`policy`] → [`replay`] → [`compare`] → [`report`].
//! No stage calls back into an earlier one; [`control`] alone reaches across.

#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod audit;
pub mod backlog;
pub mod capture;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod config;
pub mod content;
pub mod control;
pub mod doctor;
pub mod exchange;
pub mod guard;
pub mod http;
pub mod inspect;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod offline;
pub mod pace;
pub mod policy;
pub mod privileges;
pub mod ramp;
mod recent;
pub mod record;
pub mod replay;
pub mod report;
pub mod runs;
pub mod shard;
pub mod standstill;
pub mod tcp;
pub mod terminal;
pub mod traces;
