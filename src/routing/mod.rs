//! Pure routing.
