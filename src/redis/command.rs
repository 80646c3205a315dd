//! One command, and what has to be known to send it: where it goes, and whether it may be sent twice.

use std::sync::Arc;

use redis::{Arg, Cmd, ToRedisArgs};

use super::slot_map::Slot;

/// What most commands need, so that they do not grow bit by bit.
const ARGUMENTS: usize = 24;
const BYTES: usize = 768;

/// A Lua script, which a server learns when it is called there first.
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
    ///
    /// A server that is just taking over the slot is told the first key alone: the others then end `ARGV`, the last
    /// one first.
    pub fn call(&self, keys: &[&str]) -> Command {
        let mut command = Command::new("EVALSHA", keys.first().copied().unwrap_or_default());
        command.command.arg(&self.hash).arg(keys.len()).arg(keys);
        Command { script: Some(self.text.clone()), keys: keys.len(), ..command }
    }
}

/// A command on its way to the server that holds its slot.
#[derive(Debug)]
pub struct Command {
    pub(super) slot: Slot,
    command: Cmd,
    /// The text of the script that it calls.
    pub(super) script: Option<Arc<str>>,
    keys: usize,
    /// Whether it may be sent again when nobody knows what became of it.
    pub(super) repeatable: bool,
    /// Whether it is a publisher's write.
    pub(super) publishes: bool,
    /// Whether it ends with the server's run.
    pub(super) tells_run: bool,
}

impl Command {
    /// A command whose place is the slot of `key` (or channel), which is not added to its arguments.
    pub fn new(name: &str, key: &str) -> Self {
        let mut command = Cmd::with_capacity(ARGUMENTS, BYTES);
        command.arg(name);
        let (repeatable, publishes, tells_run) = (true, false, false);
        Self { slot: Slot::of(key), command, script: None, keys: 1, repeatable, publishes, tells_run }
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

    /// A publisher's write: it shares pipelines with others, and counts only once `redis.wait_replicas` replicas have
    /// it.
    pub fn publishes(self) -> Self {
        Self { publishes: true, ..self }
    }

    /// A call of a script whose last argument is to be the server's run: another text after each of its starts and
    /// promotions.
    pub fn tells_run(self) -> Self {
        Self { tells_run: true, ..self }
    }

    /// The command as it is sent; `alone` to a server that is just taking over the slot: such a one executes it for
    /// keys that are not there yet only where it names no more than one.
    pub(super) fn encoded(&self, alone: bool) -> Cmd {
        if !alone || self.keys < 2 {
            return self.command.clone();
        }
        let arguments: Vec<&[u8]> = self.command.args_iter().filter_map(plain).collect();
        let [name, hash, _, rest @ ..] = arguments.as_slice() else { return self.command.clone() };
        let (keys, rest) = rest.split_at(self.keys.min(rest.len()));
        let mut command = Cmd::new();
        command.arg(name).arg(hash).arg(1).arg(keys[0]).arg(rest);
        keys[1..].iter().rev().for_each(|key| {
            command.arg(key);
        });
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
            let texts = command.args_iter().filter_map(plain);
            texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
        };
        let call = script.call(&["a", "b", "c"]).arg("x").arg(7);
        assert_eq!(texts(&call.encoded(false))[2..], ["3", "a", "b", "c", "x", "7"]);
        assert_eq!(texts(&call.encoded(true))[2..], ["1", "a", "x", "7", "c", "b"]);
        let get = Command::on("GET", "k");
        assert_eq!(texts(&get.encoded(true)), texts(&get.encoded(false)));
    }
}
