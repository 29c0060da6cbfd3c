//! The FUSE servers behind virtio-fs.
