//! Writes the log without ever failing, blocking or delaying who logs. A thread of its own does it, because standard
//! error may be a pipe that nobody reads. A line for which there is no place is dropped.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How many lines wait.
const LINES: usize = 4096;

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Entry {
    Line(Vec<u8>),
    /// All earlier lines are to be written.
    Flush(SyncSender<()>),
}

/// Takes lines. Cheap to clone.
#[derive(Clone)]
pub struct LogWriter(SyncSender<Entry>);

/// Waits for the last lines when it is dropped.
#[must_use]
pub struct LogFlush(LogWriter);

impl LogWriter {
    /// Writes to `out`, whatever becomes of it.
    pub fn start(out: impl Write + Send + 'static) -> (Self, LogFlush) {
        let (sender, lines) = sync_channel(LINES);
        // Without the thread nothing is logged, and all else goes on.
        let _thread = thread::Builder::new().name("log".to_owned()).spawn(|| write(lines, out));
        (Self(sender.clone()), LogFlush(Self(sender)))
    }
}

fn write(lines: Receiver<Entry>, mut out: impl Write) {
    for entry in lines {
        match entry {
            Entry::Line(line) => _ = out.write_all(&line),
            Entry::Flush(done) => _ = out.flush().and_then(|()| done.send(()).map_err(io::Error::other)),
        }
    }
}

impl Drop for LogFlush {
    fn drop(&mut self) {
        let (done, is_done) = sync_channel(1);
        if self.0.0.try_send(Entry::Flush(done)).is_ok() {
            let _in_time = is_done.recv_timeout(LAST_LINES);
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _there_is_place = self.0.try_send(Entry::Line(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Failing(Arc<Mutex<Vec<u8>>>);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            match bytes {
                b"good\n" => Ok(bytes.len()),
                _ => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_fails_stops_no_other() {
        let out = Failing::default();
        let (mut writer, flush) = LogWriter::start(out.clone());
        for line in ["good\n", "bad\n", "good\n"] {
            writer.write_all(line.as_bytes()).unwrap();
        }
        drop(flush);
        assert_eq!(*out.0.lock().unwrap(), b"good\nbad\ngood\n");
    }

    /// Blocks until it is told to go on.
    struct Blocked(Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _go_on = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_log_delays_nobody() {
        let (go_on, blocked) = sync_channel(0);
        let (mut writer, flush) = LogWriter::start(Blocked(blocked));
        for _ in 0..3 * LINES {
            writer.write_all(b"line\n").unwrap();
        }
        drop(go_on);
        drop(flush);
    }
}
