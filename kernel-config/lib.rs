//! The guest kernel's inputs.
