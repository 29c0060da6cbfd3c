//! Containers as the user means them.
