//! Virtual hardware: virtio-mmio transport, fs, vsock, rng, serial.
