//! The records that were written last, so that the writer need not read them again for the next events.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// How many records at least are kept; never more than twice as many.
const RECORDS: usize = 8192;

/// Records in two generations. The older is dropped when the younger is full.
#[derive(Debug)]
pub struct RecordCache<K, R> {
    young: HashMap<K, R>,
    old: HashMap<K, R>,
}

impl<K, R> Default for RecordCache<K, R> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash, R> RecordCache<K, R> {
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&R>
    where
        K: Borrow<Q>,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Notes a record; `None` where there is none any more.
    pub fn note(&mut self, key: K, record: Option<R>) {
        let Some(record) = record else {
            self.young.remove(&key);
            self.old.remove(&key);
            return;
        };
        if self.young.len() >= RECORDS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_last_ones_and_no_more_than_fit() {
        let mut cache = RecordCache::default();
        for number in 0..RECORDS + 10 {
            cache.note(number, Some(1));
        }
        cache.note(0, Some(2));
        cache.note(1, None);
        assert_eq!((cache.get(&0), cache.get(&1), cache.get(&2)), (Some(&2), None, Some(&1)));
        for number in 0..2 * RECORDS {
            cache.note(RECORDS + number, Some(1));
        }
        assert_eq!(cache.get(&0), None);
        assert!(cache.young.len() + cache.old.len() <= 2 * RECORDS);
    }
}
