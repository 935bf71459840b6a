//! Each state machine against tables of what it must do, and against a naive
//! model of itself.

mod balance;
mod breaker;
mod breaker_model;
mod budget;
mod health;
mod spread;
