//! One command and what has to be known to send it: where it goes, and whether it may be sent twice.

use std::sync::Arc;

use redis::{Arg, Cmd, ToRedisArgs};

use super::slots::Slot;

/// What most commands need, so that they do not grow bit by bit.
const ARGUMENTS: usize = 20;
const BYTES: usize = 512;

/// A Lua script that a server may have to be told first.
#[derive(Debug)]
pub struct Script {
    text: Arc<str>,
    hash: String,
}

impl Script {
    /// A script made of parts that follow one another.
    pub fn new(parts: &[&str]) -> Self {
        let text = parts.join("\n");
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text: text.into(), hash }
    }

    /// A call of the script on keys that share a slot; its arguments follow.
    pub fn call(&self, keys: &[&str]) -> Call {
        let mut call = Call::new("EVALSHA", keys.first().copied().unwrap_or_default());
        call.command.arg(&self.hash).arg(keys.len()).arg(keys);
        Call { script: Some(self.text.clone()), keys: keys.len(), ..call }
    }
}

/// A command on its way to the server that holds its slot.
#[derive(Debug)]
pub struct Call {
    pub slot: Slot,
    pub command: Cmd,
    /// The text of the script that it calls.
    pub script: Option<Arc<str>>,
    keys: usize,
    /// Whether it may be sent again when nobody knows what became of it.
    pub repeatable: bool,
    /// Whether it has to wait while gateways tell a server that came back what they know.
    pub fenced: bool,
    /// Whether it counts only once `redis.wait_replicas` replicas have it.
    pub durable: bool,
}

impl Call {
    /// A command whose place is the slot of `key` (or channel), which is not added to its arguments.
    pub fn new(name: &str, key: &str) -> Self {
        let mut command = Cmd::with_capacity(ARGUMENTS, BYTES);
        command.arg(name);
        Self {
            slot: Slot::of(key),
            command,
            script: None,
            keys: 1,
            repeatable: true,
            fenced: false,
            durable: false,
        }
    }

    /// A command whose first argument is its key or channel.
    pub fn on(name: &str, key: &str) -> Self {
        Self::new(name, key).arg(key)
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }

    /// A command whose effect must not happen twice: where its outcome is unknown, that is its answer.
    pub fn once(self) -> Self {
        Self { repeatable: false, ..self }
    }

    /// A command that gives out numbers.
    pub fn fenced(self) -> Self {
        Self { fenced: true, ..self }
    }

    /// A command whose effect must not be lost with one server.
    pub fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    /// The command as it is sent to a server that is just taking over the slot: such a one executes it for keys that
    /// are not there yet only where it names no more than one.
    pub fn with_one_key(&self) -> Cmd {
        let arguments: Vec<&[u8]> = self.command.args_iter().filter_map(plain).collect();
        let (true, [name, hash, _, key, rest @ ..]) = (self.keys > 1, arguments.as_slice()) else {
            return self.command.clone();
        };
        let mut command = Cmd::new();
        command.arg(name).arg(hash).arg(1).arg(key).arg(rest.get(self.keys - 1..).unwrap_or_default());
        command
    }
}

fn plain(argument: Arg<&[u8]>) -> Option<&[u8]> {
    match argument {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_left_for_a_server_that_takes_over() {
        let script = Script::new(&["return 1"]);
        let texts = |command: &Cmd| -> Vec<String> {
            command
                .args_iter()
                .filter_map(plain)
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect()
        };
        let call = script.call(&["a", "b"]).arg("x").arg(7);
        assert_eq!(texts(&call.command)[2..], ["2", "a", "b", "x", "7"]);
        assert_eq!(texts(&call.with_one_key())[2..], ["1", "a", "x", "7"]);
        let call = Call::on("GET", "k");
        assert_eq!(texts(&call.with_one_key()), texts(&call.command));
    }
}
