//! Places: how many of something each user or address has, within a bound.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many places each key has taken. A key without places takes no memory.
#[derive(Debug)]
pub struct Places<K>(Mutex<HashMap<K, usize>>);

/// A place that is taken. Dropping it gives it back.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    places: Arc<Places<K>>,
    /// `None` once it is kept.
    key: Option<K>,
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Places<K> {
    fn taken(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place. `None` if the key has `limit` of them or more.
    pub fn take(self: &Arc<Self>, key: &K, limit: usize) -> Option<Place<K>>
    where
        K: Clone,
    {
        let mut taken = self.taken();
        match taken.entry(key.clone()) {
            Entry::Occupied(count) if *count.get() >= limit => return None,
            Entry::Occupied(mut count) => *count.get_mut() += 1,
            Entry::Vacant(_) if limit == 0 => return None,
            Entry::Vacant(place) => _ = place.insert(1),
        }
        drop(taken);
        Some(Place { places: self.clone(), key: Some(key.clone()) })
    }

    /// Gives a place back that was kept.
    pub fn give_back(&self, key: &K) {
        let mut taken = self.taken();
        match taken.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = taken.remove(key),
        }
    }
}

impl<K: Eq + Hash> Place<K> {
    /// Leaves it taken, until [`Places::give_back`].
    pub fn keep(mut self) {
        self.key = None;
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.places.give_back(key);
        }
    }
}

#[cfg(test)]
impl<K: Eq + Hash> Places<K> {
    pub fn count(&self, key: &K) -> usize {
        self.taken().get(key).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_so_many_places() {
        let places = Arc::new(Places::default());
        let first = places.take(&"a", 2).unwrap();
        let _second = places.take(&"a", 2).unwrap();
        assert!(places.take(&"a", 2).is_none());
        let _other = places.take(&"b", 2).unwrap();
        assert!(places.take(&"c", 0).is_none());
        drop(first);
        places.take(&"a", 2).unwrap().keep();
        assert!(places.take(&"a", 2).is_none(), "a place that is kept");
        places.give_back(&"a");
        assert!(places.take(&"a", 2).is_some());
    }

    #[test]
    fn keys_without_places_are_forgotten() {
        let places = Arc::new(Places::default());
        let two = [places.take(&"a", 2), places.take(&"a", 2)];
        drop(two);
        places.take(&"b", 2).unwrap().keep();
        places.give_back(&"b");
        places.give_back(&"b");
        assert!(places.take(&"c", 0).is_none());
        assert!(places.taken().is_empty());
    }
}
