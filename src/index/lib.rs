//! The file index of an image: build, merge, verify, look up.
