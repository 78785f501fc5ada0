//! Places that are taken by address: one host cannot have all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many places each address has. Clones share the count.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    per_address_max: usize,
}

/// One place of an address; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    /// `per_address_max` places for each address.
    pub fn new(per_address_max: usize) -> Self {
        Self {
            taken: Arc::default(),
            per_address_max,
        }
    }

    /// A place for `address`; `None` if it has all that it may have. An IPv4 address written as IPv6
    /// is the same address.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken();
        let count = taken.entry(address).or_insert(0);
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        drop(taken);
        let places = self.clone();
        Some(Place { places, address })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // Each change is a single step: a panic elsewhere leaves the counts whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_its_places_and_no_more_and_gives_them_back() {
        let places = Places::new(2);
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let held = [places.take(one), places.take(mapped)];
        assert!(held.iter().all(Option::is_some));
        assert!(places.take(one).is_none());
        assert!(places.take(other).is_some(), "another one is served");
        drop(held);
        assert!(places.take(one).is_some());
        assert!(places.taken().is_empty(), "nothing is kept of who is gone");
    }
}
