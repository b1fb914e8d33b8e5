//! The maps of enrollment: seats, standing sessions, and who is in which.

use std::collections::BTreeMap;

use agent_guard_common::{
    attach::Relative,
    enroll::{Missed, Seat},
};

use aya::maps::MapError;

use super::{super::Error, Maps, gone, taken};

impl Maps {
    /// Leaves a seat for a process that is about to execute a program.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn reserve(&mut self, process: &Relative, seat: &Seat) -> Result<(), Error> {
        self.seats.insert(process, seat, 0).map_err(Error::map("SEATS"))
    }

    /// Whether there is one.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn has_seat(&self, process: &Relative) -> Result<bool, Error> {
        match self.seats.get(process, 0) {
            Ok(_) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(Error::map("SEATS")(error)),
        }
    }

    /// Takes one away; false if it was gone already.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn take_seat(&mut self, process: &Relative) -> Result<bool, Error> {
        taken(self.seats.remove(process), "SEATS")
    }

    /// Takes all of them away.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn clear_seats(&mut self) -> Result<(), Error> {
        let all: Vec<Relative> = self.seats.keys().filter_map(Result::ok).collect();
        all.iter().try_for_each(|process| gone(self.seats.remove(process), "SEATS"))
    }

    /// Says where standing session of a number is.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn set_standing(&mut self, number: u32, seat: &Seat) -> Result<(), Error> {
        self.standing.set(number, seat, 0).map_err(Error::map("STANDING"))
    }

    /// Users that are enrolled.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn enrolled_users(&self) -> Result<Vec<u32>, Error> {
        self.users.keys().collect::<Result<_, _>>().map_err(Error::map("ENROLLED_USERS"))
    }

    /// Enrolls a user into a standing session.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn enroll_user(&mut self, uid: u32, number: u32) -> Result<(), Error> {
        self.users.insert(uid, number, 0).map_err(Error::map("ENROLLED_USERS"))
    }

    /// A user is enrolled no more.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn disenroll_user(&mut self, uid: u32) -> Result<(), Error> {
        gone(self.users.remove(&uid), "ENROLLED_USERS")
    }

    /// Control groups that are enrolled, and their standing sessions.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn enrolled_groups(&self) -> Result<BTreeMap<u64, u32>, Error> {
        self.groups.iter().collect::<Result<_, _>>().map_err(Error::map("ENROLLED_CGROUPS"))
    }

    /// Enrolls a control group.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn enroll_group(&mut self, id: u64, number: u32) -> Result<(), Error> {
        self.groups.insert(id, number, 0).map_err(Error::map("ENROLLED_CGROUPS"))
    }

    /// A control group is enrolled no more.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn disenroll_group(&mut self, id: u64) -> Result<(), Error> {
        gone(self.groups.remove(&id), "ENROLLED_CGROUPS")
    }

    /// Control groups that could not be noted, and how far the daemon has looked after them.
    ///
    /// # Errors
    ///
    /// If a map can't be read.
    pub fn missed_groups(&self) -> Result<(Missed, Missed), Error> {
        let missed = self.missed.get(&0, 0).map_err(Error::map("MISSED"))?;
        Ok((missed, self.looked.get(&0, 0).map_err(Error::map("LOOKED"))?))
    }

    /// The daemon has looked at all control groups.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn set_looked(&mut self, looked: Missed) -> Result<(), Error> {
        self.looked.set(0, looked, 0).map_err(Error::map("LOOKED"))
    }
}
