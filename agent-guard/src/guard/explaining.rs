//! `policy explain` of what is in force: the tables that the kernel has, read back.

use super::{Guard, InForce, lock, policy::no_policy, sessions::internal};
use crate::{
    api::{
        backend::Peer,
        convert,
        error::{ApiError, Code},
        types::{ExplainRequest, ExplanationView},
    },
    policy::{Compiled, explain::ask, session},
};

impl Guard {
    /// Answers a question about the policy in force; about a session, if the caller may see it.
    pub(super) fn explanation(
        &self,
        peer: &Peer,
        request: &ExplainRequest,
    ) -> Result<ExplanationView, ApiError> {
        let state = lock(&self.state);
        let Some(in_force) = &state.in_force else { return Err(no_policy()) };
        let names = || in_force.compiled.profiles.iter().map(|(name, _, _)| name.as_str());
        let failed = |error| convert::explain_error(&error, names());
        let question = convert::question(request).map_err(failed)?;
        let binding = match request.session {
            Some(id) => {
                let session = self.visible(&state, peer, id)?;
                let rules = session.rules();
                if rules.profile != request.profile {
                    let what = format!("session {id} has profile \"{}\"", rules.profile);
                    return Err(ApiError::new(Code::BadRequest, what));
                }
                rules.binding
            }
            None => session::NO_SESSION,
        };
        let index = in_force.compiled.index_of(&request.profile).map_err(failed)?;
        // What the kernel has, not what it was given.
        let tables = self.kernel_tables(in_force)?;
        let answers = ask(&tables.view(), &self.fs, (index, binding), &question).map_err(failed)?;
        let (who, number) = ((request.profile.as_str(), index), in_force.generation);
        Ok(convert::explanation(who, &tables, &question, number, &answers, |rule| self.hooks_of(rule)))
    }

    /// What the kernel judges by.
    fn kernel_tables(&self, in_force: &InForce) -> Result<Compiled, ApiError> {
        let read = lock(&self.maps).outer.read().map_err(internal)?;
        let known = &in_force.compiled;
        let mut tables = Compiled::default();
        tables.key = self.key;
        tables.rules.clone_from(&known.rules);
        // The kernel knows no names of hosts.
        tables.hosts.clone_from(&known.hosts);
        tables.head.suffixes = read.suffixes;
        let names = known.profiles.iter();
        tables.profiles = names
            .filter_map(|(name, index, _)| {
                let (_, profile) = read.profiles.iter().find(|(other, _)| other == index)?;
                Some((name.clone(), *index, *profile))
            })
            .collect();
        let files = read.files;
        tables.filter = files.filter.into_iter().collect();
        tables.objects = files.objects.into_iter().collect();
        tables.names = files.names.into_iter().collect();
        tables.shapes = files.shapes.into_iter().collect();
        tables.places = files.places.into_iter().collect();
        tables.sides = files.sides.into_iter().collect();
        tables.commands = read.commands;
        tables.programs = read.programs.into_iter().collect();
        tables.networks = read.networks.into_iter().map(|(bits, key, entry)| ((bits, key), entry)).collect();
        tables.abstracts =
            read.abstracts.into_iter().map(|(bits, key, entry)| ((bits, key), entry)).collect();
        Ok(tables)
    }
}
