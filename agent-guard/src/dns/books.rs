//! What each session has asked lately.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::limits::{Bucket, Limit, Rates};

/// Sessions of which there is a book. The kernel has room for 1024 of them.
const MOST_SESSIONS: usize = 4096;
/// Names of a session that are remembered. One that was forgotten counts as new.
const MOST_NAMES: usize = 4096;

/// The books of all sessions.
#[derive(Default)]
pub(super) struct Books {
    books: Mutex<HashMap<u64, Book>>,
    /// Names are remembered by their hash under a key that nobody knows.
    hasher: RandomState,
}

#[derive(Default)]
struct Book {
    queries: Bucket,
    names: Bucket,
    known: HashSet<u64>,
    /// The same, the oldest first.
    order: VecDeque<u64>,
    under_way: usize,
    connections: usize,
}

/// Something that is counted for as long as this lives.
pub(super) struct Place {
    books: Arc<Books>,
    session: u64,
    of: fn(&mut Book) -> &mut usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(book) = self.books.lock().get_mut(&self.session) {
            let count = (self.of)(book);
            *count = count.saturating_sub(1);
        }
    }
}

impl Books {
    /// A book is whole after each step, so one that somebody has panicked over can be used on.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Book>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a query.
    pub(super) fn query(self: &Arc<Self>, session: u64, rates: Rates, now: Instant) -> Result<Place, Limit> {
        let mut books = self.lock();
        let book = book(&mut books, session, now).ok_or(Limit::Queries)?;
        if book.under_way >= rates.under_way {
            return Err(Limit::UnderWay);
        }
        if !book.queries.take(rates.queries, now) {
            return Err(Limit::Queries);
        }
        book.under_way += 1;
        Ok(Place { books: Arc::clone(self), session, of: |book| &mut book.under_way })
    }

    /// Counts a connection.
    pub(super) fn connection(
        self: &Arc<Self>,
        session: u64,
        rates: Rates,
        now: Instant,
    ) -> Result<Place, Limit> {
        let mut books = self.lock();
        let book = book(&mut books, session, now).ok_or(Limit::Connections)?;
        if book.connections >= rates.connections {
            return Err(Limit::Connections);
        }
        book.connections += 1;
        Ok(Place { books: Arc::clone(self), session, of: |book| &mut book.connections })
    }

    /// Counts a name, if the session hasn't asked for it lately.
    pub(super) fn name(&self, session: u64, name: &str, rates: Rates, now: Instant) -> Result<(), Limit> {
        let hash = self.hasher.hash_one(name);
        let mut books = self.lock();
        let book = book(&mut books, session, now).ok_or(Limit::Names)?;
        if book.known.contains(&hash) {
            return Ok(());
        }
        if !book.names.take(rates.names, now) {
            return Err(Limit::Names);
        }
        if book.order.len() >= MOST_NAMES
            && let Some(oldest) = book.order.pop_front()
        {
            book.known.remove(&oldest);
        }
        book.known.insert(hash);
        book.order.push_back(hash);
        Ok(())
    }

    /// Closes the books that say no more than a new one would.
    pub(super) fn tidy(&self, now: Instant) {
        tidy(&mut self.lock(), now);
    }
}

fn tidy(books: &mut HashMap<u64, Book>, now: Instant) {
    books.retain(|_, book| {
        book.under_way > 0 || book.connections > 0 || !book.queries.is_full(now) || !book.names.is_full(now)
    });
}

/// The session's book; none if there are too many.
fn book(books: &mut HashMap<u64, Book>, session: u64, now: Instant) -> Option<&mut Book> {
    if books.len() >= MOST_SESSIONS && !books.contains_key(&session) {
        tidy(books, now);
        if books.len() >= MOST_SESSIONS {
            return None;
        }
    }
    Some(books.entry(session).or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dns::limits::Rate;

    fn rates() -> Rates {
        Rates {
            queries: Rate { count: 1, per: Duration::from_secs(1), burst: 3 },
            names: Rate { count: 1, per: Duration::from_secs(60), burst: 2 },
            under_way: 2,
            connections: 1,
        }
    }

    #[test]
    fn what_is_under_way_counts_until_it_ends() {
        let (books, now) = (Arc::new(Books::default()), Instant::now());
        let first = books.query(1, rates(), now).ok().unwrap();
        let _second = books.query(1, rates(), now).ok().unwrap();
        assert_eq!(books.query(1, rates(), now).err(), Some(Limit::UnderWay));
        assert!(books.query(2, rates(), now).is_ok(), "another session has nothing to do with it");
        drop(first);
        let third = books.query(1, rates(), now).ok().unwrap();
        drop(third);
        assert_eq!(books.query(1, rates(), now).err(), Some(Limit::Queries));
        assert!(books.query(1, rates(), now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn connections_count_until_they_end() {
        let (books, now) = (Arc::new(Books::default()), Instant::now());
        let first = books.connection(1, rates(), now).ok().unwrap();
        assert_eq!(books.connection(1, rates(), now).err(), Some(Limit::Connections));
        assert!(books.connection(2, rates(), now).is_ok());
        drop(first);
        assert!(books.connection(1, rates(), now).is_ok());
    }

    #[test]
    fn a_known_name_costs_nothing() {
        let (books, now) = (Books::default(), Instant::now());
        assert_eq!(books.name(1, "a", rates(), now), Ok(()));
        assert_eq!(books.name(1, "b", rates(), now), Ok(()));
        assert_eq!(books.name(1, "c", rates(), now), Err(Limit::Names));
        assert_eq!(books.name(1, "a", rates(), now), Ok(()));
        assert_eq!(books.name(2, "c", rates(), now), Ok(()));
        assert_eq!(books.name(1, "c", rates(), now + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn the_oldest_name_is_forgotten() {
        let (books, mut now) = (Books::default(), Instant::now());
        for name in 0..=MOST_NAMES {
            now += Duration::from_secs(60);
            assert_eq!(books.name(1, &name.to_string(), rates(), now), Ok(()));
        }
        assert_eq!(books.lock()[&1].known.len(), MOST_NAMES);
        assert_eq!(books.lock()[&1].order.len(), MOST_NAMES);
        assert_eq!(books.name(1, "0", rates(), now), Ok(()), "one is left");
        assert_eq!(books.name(1, "1", rates(), now), Err(Limit::Names), "the second had to go for it");
    }

    #[test]
    fn books_are_closed_once_they_say_nothing() {
        let (books, now) = (Arc::new(Books::default()), Instant::now());
        let place = books.query(1, rates(), now).ok().unwrap();
        books.name(2, "a", rates(), now).unwrap();
        books.tidy(now + Duration::from_secs(59));
        assert_eq!(books.lock().len(), 2);
        books.tidy(now + Duration::from_secs(60));
        assert!(books.lock().contains_key(&1), "its query is under way");
        assert_eq!(books.lock().len(), 1);
        drop(place);
        books.tidy(now + Duration::from_secs(60));
        assert!(books.lock().is_empty());
    }

    #[test]
    fn too_many_sessions() {
        let (books, now) = (Arc::new(Books::default()), Instant::now());
        let places: Vec<_> =
            (0..4096).map(|session| books.query(session, rates(), now).ok().unwrap()).collect();
        assert_eq!(books.query(5000, rates(), now).err(), Some(Limit::Queries));
        assert!(books.query(0, rates(), now).is_ok());
        drop(places);
        assert!(books.query(5000, rates(), now + Duration::from_secs(60)).is_ok());
    }
}
