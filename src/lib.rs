//! Cellgate: an edge proxy that routes each tenant to the cell where it lives.
pub mod routing;
