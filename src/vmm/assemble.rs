// SPDX-License-Identifier: Apache-2.0
//! Config and descriptors → a machine, in the order that costs least: memory slots before the irqchip and the
//! ioeventfds, for a slot registered after them waits for every reader of KVM's interrupt tables (milliseconds).

use crate::arch::state::{self, StateError, VcpuState};
use crate::arch::{cpuid, layout, start};
use crate::assist::Layout;
use crate::boot::{self, cmdline, elf};
use crate::bus::Bus;
use crate::config::{Assist, ConfigError, MachineConfig};
use crate::mailbox::Mailbox;
use crate::memory::{self, GuestMemory, MemoryError};
use crate::raw::{self, Stats};
use crate::saved::{self, MachineState, Saved, SavedError};
use crate::slots::{self, Slots};
use crate::vcpu::Surroundings;
use isopod_devices::MmioTransport;
use isopod_devices::fs::Fs;
use isopod_devices::rng::Rng;
use isopod_devices::serial::Serial;
use isopod_devices::virtio::{RestoreError, VirtioDevice};
use isopod_devices::vsock::Vsock;
use isopod_fs::{Counters as FsCounters, IndexServer, Nothing};
use isopod_index::{Index, OpenError};
use isopod_sys::map::FileMap;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The guest's address on vsock; 0 to 2 are taken (virtio 1.3, 5.10.4).
const GUEST_CID: u64 = 3;
/// The register a driver writes a queue's number to when it has filled it (virtio 1.3, 4.2.2).
const QUEUE_NOTIFY: u64 = 0x50;

/// What a machine may touch, opened by somebody else.
#[derive(Debug)]
pub struct Descriptors {
    pub kvm: OwnedFd,
    pub kernel: File,
    /// The other end of the agent's one connection.
    pub agent: UnixStream,
    pub boot: ShareFiles,
    /// There if the config says so, as are the other two.
    pub image: Option<ShareFiles>,
    /// Where the serial console's output goes.
    pub console: Option<File>,
    /// What the machine is restored from.
    pub saved: Option<File>,
    /// Which pages of that a start touches.
    pub touched: Option<File>,
}

/// The files behind a share: its index, and the data files the index names, in its order.
#[derive(Debug)]
pub struct ShareFiles {
    pub index: File,
    pub layers: Vec<File>,
}

#[derive(Debug, Error)]
pub(crate) enum AssembleError {
    #[error("the machine's configuration is not possible")]
    Config(#[from] ConfigError),
    #[error("KVM refuses (op={op})")]
    Kvm { op: &'static str, source: kvm_ioctls::Error },
    #[error("cannot make the guest's memory")]
    Memory(#[from] MemoryError),
    #[error("cannot load the kernel")]
    Boot(#[from] boot::BootError),
    #[error("cannot use the index of the `{share}` share")]
    Index { share: &'static str, source: OpenError },
    #[error("the index of the `{share}` share names {named} data files, {given} came")]
    Layers { share: &'static str, named: usize, given: usize },
    #[error("cannot set up a device (op={op})")]
    Device { op: &'static str, source: io::Error },
    #[error("cannot use the saved machine")]
    Saved(#[from] SavedError),
    #[error("cannot set up or restore the processors")]
    Processors(#[from] StateError),
    #[error("cannot restore a device")]
    RestoreDevice(#[from] RestoreError),
}

/// A machine that has not run yet. Fields drop in this order: what uses the memory goes before it.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) vcpus: Vec<VcpuFd>,
    /// Where the agent waits, if the machine was saved while it did.
    pub(crate) mailbox: Option<Mailbox>,
    pub(crate) still: Still,
}

/// What stands still while the vCPUs run.
#[derive(Debug)]
pub(crate) struct Still {
    pub(crate) kvm: Kvm,
    pub(crate) stats: Vec<Stats>,
    pub(crate) image_counters: Arc<FsCounters>,
    pub(crate) vm: Arc<VmFd>,
    pub(crate) around: Surroundings,
    pub(crate) touched: Option<File>,
}

pub(crate) fn assemble(config: &MachineConfig, fds: Descriptors) -> Result<Assembled, AssembleError> {
    config.check()?;
    let Descriptors { kvm, kernel, agent, boot, image, console, saved: file, touched } = fds;
    let kvm = raw::kvm_from(kvm);
    let saved = file.as_ref().map(|file| saved::open(file, config)).transpose()?;
    let memory = match (&file, &saved) {
        (Some(file), Some(saved)) => memory::of_file(config.memory_mib, file, saved.envelope.memory_offset)?,
        _ => memory::new(config.memory_mib)?,
    };
    let open = match &saved {
        Some(saved) => saved.state.open,
        None if elf::can_ask(&kernel) => slots::at_boot(config.memory_mib),
        None => config.memory_mib,
    };
    let vm = Arc::new(kvm.create_vm().map_err(op("create VM"))?);
    let slots = Slots::new(Arc::clone(&vm), memory.clone(), config.memory_mib, open);
    let slots = slots.map_err(op("set memory"))?;
    vm.create_irq_chip().map_err(op("create irqchip"))?;
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(op("get CPUID"))?;
    let vcpus = vcpus(&vm, config.vcpus, &supported)?;

    let Devices { all: devices, image_counters } = devices(config, boot, image, agent)?;
    let count = u32::try_from(devices.len()).expect("there are a handful");
    let mut transports = plug(&vm, &memory, devices)?;
    let serial = console.map(|out| serial(&vm, out)).transpose()?;
    let mailbox = match saved {
        Some(saved) => restore(saved, (&kvm, &vm), &vcpus, &mut transports)?,
        None => {
            let tsc_khz = vcpus[0].get_tsc_khz().map_err(op("get the TSC's frequency"))?;
            let line = cmdline::build(config, count, tsc_khz, open);
            let entry = boot::load(&memory, &kernel, config, &line)?;
            start::set_registers(&vcpus[0], entry).map_err(op("set registers"))?;
            None
        }
    };
    let stats = vcpus.iter().filter_map(|vcpu| Stats::of(vcpu).ok()).collect();
    let emulated = config.assist == Assist::Emulated;
    let assist =
        emulated.then(|| state::check_extended(&kvm).map(|()| Layout::new(&supported))).transpose()?;
    let around = Surroundings { bus: Arc::new(Bus::new(transports, serial, slots)), memory, assist };
    Ok(Assembled { vcpus, mailbox, still: Still { kvm, stats, image_counters, vm, around, touched } })
}

/// Writes what was saved into a machine of the same make.
fn restore(
    saved: Saved,
    (kvm, vm): (&Kvm, &VmFd),
    vcpus: &[VcpuFd],
    transports: &mut [MmioTransport],
) -> Result<Option<Mailbox>, AssembleError> {
    state::check_extended(kvm)?;
    let MachineState { vcpus: states, chips, devices, mailbox, open: _ } = saved.state;
    if devices.len() != transports.len() {
        let (saved, wanted) = (devices.len() as u64, transports.len() as u64);
        return Err(SavedError::Differs { what: "devices", saved, wanted }.into());
    }
    state::restore_chips(vm, &chips)?;
    let tsc = states.first().and_then(VcpuState::tsc);
    for (vcpu, state) in vcpus.iter().zip(&states) {
        state::restore(vcpu, state, tsc)?;
    }
    for (transport, state) in transports.iter_mut().zip(&devices) {
        transport.restore(state)?;
    }
    Ok(mailbox)
}

fn vcpus(vm: &VmFd, count: u8, supported: &CpuId) -> Result<Vec<VcpuFd>, AssembleError> {
    (0..count)
        .map(|id| {
            let vcpu = vm.create_vcpu(u64::from(id)).map_err(op("create vCPU"))?;
            vcpu.set_cpuid2(&cpuid::for_vcpu(supported, id, count)).map_err(op("set CPUID"))?;
            Ok(vcpu)
        })
        .collect()
}

#[derive(Debug)]
struct Devices {
    /// In the order of their windows and lines.
    all: Vec<Box<dyn VirtioDevice>>,
    image_counters: Arc<FsCounters>,
}

fn devices(
    config: &MachineConfig,
    boot: ShareFiles,
    image: Option<ShareFiles>,
    agent: UnixStream,
) -> Result<Devices, AssembleError> {
    let image = match image {
        Some(image) => Fs::new("image", share("image", image)?),
        None => Fs::new("image", Nothing),
    };
    let image_counters = image.counters();
    let vsock = Vsock::new(GUEST_CID, config.agent_port, agent).map_err(device("make a vsock"))?;
    let boot = Fs::new("boot", share("boot", boot)?);
    Ok(Devices {
        all: vec![Box::new(boot), Box::new(image), Box::new(vsock), Box::new(Rng::new())],
        image_counters,
    })
}

fn share(name: &'static str, files: ShareFiles) -> Result<IndexServer<FileMap>, AssembleError> {
    let map = FileMap::new(&files.index).map_err(device("map an index"))?;
    let index = Index::open(map).map_err(|source| AssembleError::Index { share: name, source })?;
    let (named, given) = (index.layers(), files.layers.len());
    if named > given {
        return Err(AssembleError::Layers { share: name, named, given });
    }
    Ok(IndexServer::new(index, files.layers))
}

/// Gives each device its window, its interrupt line and its doorbells.
fn plug(
    vm: &VmFd,
    memory: &GuestMemory,
    devices: Vec<Box<dyn VirtioDevice>>,
) -> Result<Vec<MmioTransport>, AssembleError> {
    let windows = (layout::VIRTIO_MMIO..).step_by(usize::try_from(layout::VIRTIO_MMIO_SIZE).expect("4096"));
    let mut transports = Vec::with_capacity(devices.len());
    for ((device_, window), line) in devices.into_iter().zip(windows).zip(layout::VIRTIO_IRQ..) {
        let irq = eventfd()?;
        vm.register_irqfd(&irq, line).map_err(op("register irqfd"))?;
        let transport =
            MmioTransport::new(device_, memory.clone(), irq).map_err(device("make a transport"))?;
        for (queue, kick) in transport.kicks() {
            let doorbell = IoEventAddress::Mmio(window + QUEUE_NOTIFY);
            vm.register_ioevent(kick, &doorbell, queue).map_err(op("register ioeventfd"))?;
        }
        transports.push(transport);
    }
    Ok(transports)
}

fn serial(vm: &VmFd, out: File) -> Result<Serial, AssembleError> {
    let irq = eventfd()?;
    vm.register_irqfd(&irq, layout::SERIAL_IRQ).map_err(op("register irqfd"))?;
    Ok(Serial::new(irq, Box::new(out)))
}

fn eventfd() -> Result<EventFd, AssembleError> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(device("make an eventfd"))
}

fn op(op: &'static str) -> impl Fn(kvm_ioctls::Error) -> AssembleError {
    move |source| AssembleError::Kvm { op, source }
}

fn device(op: &'static str) -> impl Fn(io::Error) -> AssembleError {
    move |source| AssembleError::Device { op, source }
}
