//! How many connections an address has, and how many new ones a second.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What one address may have.
#[derive(Debug, Clone, Copy)]
pub struct AddressLimits {
    /// Open connections.
    pub open: usize,
    /// New connections a second.
    pub per_second: u32,
}

/// Over what time new connections are counted.
const SECOND: Duration = Duration::from_secs(1);

/// Below this size the table is not swept.
const MIN_SWEEP: usize = 1024;

/// The connections of all addresses. An IPv6 client has a whole /64, so these count as one address.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<IpAddr, Entry>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Entry {
    open: usize,
    /// When the present second began, and how many connections are from it.
    second: Instant,
    new: u32,
}

/// A connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct AddressPlace {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// Takes a place. `None` if the address has as many as it may.
    pub fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        limits: AddressLimits,
        now: Instant,
    ) -> Option<AddressPlace> {
        let address = network(address);
        let mut table = self.table();
        table.sweep(now);
        let entry = table.entries.entry(address).or_insert(Entry { open: 0, second: now, new: 0 });
        if now.duration_since(entry.second) >= SECOND {
            (entry.second, entry.new) = (now, 0);
        }
        if entry.open >= limits.open || entry.new >= limits.per_second {
            return None;
        }
        entry.open += 1;
        entry.new += 1;
        drop(table);
        Some(AddressPlace { addresses: self.clone(), address })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Forgets addresses without connections, now and then.
    fn sweep(&mut self, now: Instant) {
        if self.entries.len() >= self.sweep_at.max(MIN_SWEEP) {
            self.entries.retain(|_, entry| entry.open > 0 || now.duration_since(entry.second) < SECOND);
            self.sweep_at = self.entries.len() * 2;
        }
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        if let Some(entry) = self.addresses.table().entries.get_mut(&self.address) {
            entry.open -= 1;
        }
    }
}

/// The addresses that count as one: with IPv6 one client may have 2^64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_so_many_new_ones_a_second() {
        let (addresses, now) = (Arc::new(Addresses::default()), Instant::now());
        let limits = AddressLimits { open: 3, per_second: 2 };
        let enter = |address: &str, now| addresses.enter(address.parse().unwrap(), limits, now);
        let _one = enter("192.0.2.1", now).unwrap();
        let two = enter("::ffff:192.0.2.1", now).unwrap();
        assert!(enter("192.0.2.1", now).is_none(), "the third in a second");
        let _three = enter("192.0.2.1", now + SECOND).unwrap();
        assert!(enter("192.0.2.1", now + SECOND).is_none(), "the fourth");
        let _other = enter("192.0.2.2", now + SECOND).unwrap();
        drop(two);
        let _again = enter("192.0.2.1", now + SECOND).unwrap();
        let _first = enter("2001:db8:0:1::1", now).unwrap();
        let _second = enter("2001:db8:0:1:ffff::2", now).unwrap();
        assert!(enter("2001:db8:0:1::3", now).is_none(), "one network");
        let _next = enter("2001:db8:0:2::3", now).unwrap();
    }

    #[test]
    fn forgets_addresses() {
        let (addresses, now) = (Arc::new(Addresses::default()), Instant::now());
        let limits = AddressLimits { open: 1, per_second: 1 };
        for number in 0..100_000 {
            let address = std::net::Ipv4Addr::from_bits(number).into();
            assert!(addresses.enter(address, limits, now + SECOND * number).is_some());
        }
        assert!(addresses.table().entries.len() <= 2 * MIN_SWEEP);
    }
}
