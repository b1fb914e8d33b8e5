//! Bodies of requests: none may panic, and what was understood reads the same when it is written again.

#![no_main]

use std::fmt::Debug;

use agent_guard::api::types::{Answer, ExplainRequest, StartSession};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<T>(data) else { return };
    let text = serde_json::to_vec(&request).expect("what was read can be written");
    let again = serde_json::from_slice::<T>(&text).expect("what was written can be read");
    assert_eq!(request, again);
}

fuzz_target!(|data: &[u8]| {
    there_and_back::<StartSession>(data);
    there_and_back::<ExplainRequest>(data);
    there_and_back::<Answer>(data);
});
