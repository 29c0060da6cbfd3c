// SPDX-License-Identifier: Apache-2.0
//! Names in folders while a tree is being made: 12 bytes each, and a hash table of their numbers.
//!
//! A link says: folder `parent` has `name`, which is `node`. Links are never taken out, only pointed elsewhere or at
//! nothing, so their numbers stay good. Names are known by reference; who holds their bytes is a `Names`.

use crate::format::at;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// No node: the name is not there.
pub(crate) const NOTHING: u32 = u32::MAX;
/// A slot holds a link's number plus one, or this: memory that was never touched is empty slots.
const EMPTY: u32 = 0;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) parent: u32,
    pub(crate) name: u32,
    pub(crate) node: u32,
}

pub(crate) trait Names {
    fn name(&self, reference: u32) -> &[u8];
}

/// The links of a tree. Hashed with a key of this process, so that no archive can choose names that collide.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: Vec<Link>,
    slots: Vec<u32>,
    hasher: RandomState,
}

impl Links {
    /// Room for so many links, to be touched when they come.
    pub(crate) fn with_capacity(links: usize) -> Self {
        let slots = (links.saturating_mul(8) / 7 + 1).next_power_of_two();
        Self { links: Vec::with_capacity(links), slots: vec![EMPTY; slots], ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Bytes held, as far as they are touched.
    pub(crate) fn memory(&self) -> usize {
        self.links.len() * size_of::<Link>() + self.slots.len() * size_of::<u32>()
    }

    pub(crate) fn get(&self, link: u32) -> Link {
        self.links.get(at(link)).copied().unwrap_or(Link { parent: NOTHING, name: 0, node: NOTHING })
    }

    pub(crate) fn point(&mut self, link: u32, node: u32) {
        if let Some(link) = self.links.get_mut(at(link)) {
            link.node = node;
        }
    }

    /// The link of this name, though it may point at nothing.
    pub(crate) fn find(&self, names: &impl Names, parent: u32, name: &[u8]) -> Option<u32> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = self.hash(parent, name) & mask;
        loop {
            let number = self.slots[slot].checked_sub(1)?;
            let link = self.get(number);
            if link.parent == parent && names.name(link.name) == name {
                return Some(number);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Adds a link whose name `find` did not find. `None` when numbers run out.
    pub(crate) fn add(&mut self, names: &impl Names, link: Link) -> Option<u32> {
        if (self.links.len() + 1) * 8 > self.slots.len() * 7 {
            self.grow(names);
        }
        let number = u32::try_from(self.links.len()).ok().filter(|n| *n < NOTHING - 1)?;
        self.links.push(link);
        self.place(names, number);
        Some(number)
    }

    fn grow(&mut self, names: &impl Names) {
        let slots = (self.slots.len() * 2).max(64);
        self.slots = Vec::new();
        self.slots = vec![EMPTY; slots];
        for number in (0u32..).take(self.links.len()) {
            self.place(names, number);
        }
    }

    fn place(&mut self, names: &impl Names, number: u32) {
        let link = self.get(number);
        let mask = self.slots.len() - 1;
        let mut slot = self.hash(link.parent, names.name(link.name)) & mask;
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = number + 1;
    }

    fn hash(&self, parent: u32, name: &[u8]) -> usize {
        let hash = self.hasher.hash_one((parent, name));
        usize::try_from(hash).unwrap_or(0)
    }

    /// The links that point at something, sorted by folder and then by name.
    pub(crate) fn sorted(&self, names: &impl Names) -> Sorted {
        let live = |n: &u32| self.get(*n).node != NOTHING;
        let mut order = Vec::with_capacity(self.links.len());
        order.extend((0u32..).take(self.links.len()).filter(live));
        order.sort_unstable_by(|a, b| {
            let (a, b) = (self.get(*a), self.get(*b));
            a.parent.cmp(&b.parent).then_with(|| names.name(a.name).cmp(names.name(b.name)))
        });
        Sorted { order }
    }
}

#[derive(Debug)]
pub(crate) struct Sorted {
    order: Vec<u32>,
}

impl Sorted {
    /// The names of one folder, sorted.
    pub(crate) fn of<'a>(&'a self, links: &'a Links, parent: u32) -> impl Iterator<Item = Link> + 'a {
        let start = self.order.partition_point(|n| links.get(*n).parent < parent);
        let end = self.order.partition_point(|n| links.get(*n).parent <= parent);
        self.order[start..end].iter().map(|n| links.get(*n))
    }
}
