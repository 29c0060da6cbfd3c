//! OCI images: content by digest, layers, archives.
