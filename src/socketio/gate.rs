//! Judges a client's packets before socketioxide sees them. Counts all of them, and answers those for which socketioxide
//! would end the connection without a word.

use std::{borrow::Cow, num::NonZeroU32, time::Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::value::RawValue;

use super::{NAMESPACE, request::refusal_packet};
use crate::{
    error::{ApiError, ErrorCode},
    gateway::{CloseReason, Gateway},
    net::Connection,
    telemetry::ReasonLabel,
};

/// For how many seconds in a row a client may send more than it may, before it is closed.
const PATIENCE: u64 = 5;

/// The most attachments of one packet that are read to be thrown away.
const MAX_ATTACHMENTS: usize = 64;

/// Ends the connection of a client whose packets are not taken, and says why.
#[derive(Debug)]
pub struct Closing {
    pub gateway: Gateway,
    pub connection: Option<Connection>,
}

impl Closing {
    pub fn close(&self, reason: CloseReason) {
        let address = self.connection.as_ref().map(Connection::address);
        tracing::warn!(reason = reason.as_str(), ?address, "closing a client for what it sent");
        self.gateway.metrics().closed.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
        if let Some(connection) = &self.connection {
            connection.abort();
        }
    }
}

/// The packets of one client.
#[derive(Debug)]
pub struct Gate {
    limiter: DefaultDirectRateLimiter,
    begun: Instant,
    /// The first and the last of the seconds in a row in which there were too many packets.
    exceeded: Option<(u64, u64)>,
    /// How many attachments of a refused packet are still to come.
    attachments: usize,
}

impl Gate {
    /// Lets so many packets a second pass, and as many at once.
    pub fn new(messages_per_second: u32) -> Self {
        let rate = NonZeroU32::new(messages_per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            limiter: RateLimiter::direct(Quota::per_second(rate)),
            begun: Instant::now(),
            exceeded: None,
            attachments: 0,
        }
    }

    /// Counts a packet. Says whether it is within the rate.
    ///
    /// # Errors
    /// The client has sent too much for too long.
    pub fn count(&mut self) -> Result<bool, CloseReason> {
        if self.limiter.check().is_ok() {
            return Ok(true);
        }
        let now = self.begun.elapsed().as_secs();
        let first = match self.exceeded {
            Some((first, last)) if now - last <= 1 => first,
            _ => now,
        };
        self.exceeded = Some((first, now));
        if now - first >= PATIENCE { Err(CloseReason::TooManyMessages) } else { Ok(false) }
    }

    /// What socketioxide is given in place of an Engine.IO packet, if anything.
    ///
    /// # Errors
    /// The reason to close the connection.
    pub fn text<'a>(&mut self, packet: &'a str) -> Result<Option<Cow<'a, str>>, CloseReason> {
        let within_rate = self.count()?;
        let Some(message) = packet.strip_prefix('4') else {
            let is_known = matches!(packet, "1" | "2" | "3");
            return if is_known { Ok(Some(packet.into())) } else { Err(CloseReason::Malformed) };
        };
        if self.attachments > 0 {
            return Err(CloseReason::Malformed);
        }
        let as_it_is = Ok(within_rate.then_some(packet.into()));
        match message.as_bytes().first() {
            Some(b'0' | b'1') => as_it_is,
            Some(b'3') if is_acknowledgement(&message[1..]) => as_it_is,
            // It answers nothing that socketioxide could have asked.
            Some(b'3') => Ok(None),
            Some(b'2') => {
                let refusal = (!within_rate).then(too_many);
                Ok(judge_event(packet, &message[1..], refusal))
            }
            Some(kind @ (b'5' | b'6')) => {
                let (count, rest) = message[1..].split_once('-').ok_or(CloseReason::Malformed)?;
                let count = count.parse().ok().filter(|count| *count <= MAX_ATTACHMENTS);
                self.attachments = count.ok_or(CloseReason::Malformed)?;
                let refusal = if within_rate { binary() } else { too_many() };
                Ok(if *kind == b'5' { judge_event(packet, rest, Some(refusal)) } else { None })
            }
            _ => Err(CloseReason::Malformed),
        }
    }

    /// Takes a binary packet, which socketioxide never gets.
    ///
    /// # Errors
    /// The reason to close the connection.
    pub fn binary(&mut self) -> Result<(), CloseReason> {
        self.count()?;
        self.attachments = self.attachments.checked_sub(1).ok_or(CloseReason::Malformed)?;
        Ok(())
    }
}

fn too_many() -> ApiError {
    ApiError::new(ErrorCode::RateLimited, "too many messages a second; slow down")
}

fn binary() -> ApiError {
    ApiError::invalid("binary payloads are not understood; send text and numbers")
}

/// The namespace of a packet, and what follows it.
fn split_namespace(packet: &str) -> (&str, &str) {
    match packet.starts_with('/') {
        true => packet.split_once(',').unwrap_or((packet, "")),
        false => ("/", packet),
    }
}

/// The digits of an acknowledgement's id, and what follows them.
fn split_id(packet: &str) -> (&str, &str) {
    let body = packet.trim_start_matches(|character: char| character.is_ascii_digit());
    packet.split_at(packet.len() - body.len())
}

fn is_acknowledgement(packet: &str) -> bool {
    let (id, body) = split_id(split_namespace(packet).1);
    id.parse::<i64>().is_ok() && body.starts_with('[')
}

/// An event, or what stands for it: a packet that is answered by `refusal`, or by what is wrong with it. Nobody answers
/// in other namespaces than ours.
fn judge_event<'a>(packet: &'a str, event: &'a str, refusal: Option<ApiError>) -> Option<Cow<'a, str>> {
    let (namespace, rest) = split_namespace(event);
    if namespace != NAMESPACE {
        return refusal.is_none().then_some(packet.into());
    }
    let (id, body) = split_id(rest);
    if !id.is_empty() && id.parse::<i64>().is_err() {
        let message =
            format!("{id:.32}: is too large for the id of an acknowledgement; the largest is {}", i64::MAX);
        return Some(refusal_packet("", &refusal.unwrap_or(ApiError::invalid(message))).into());
    }
    match refusal.map_or_else(|| readable(body), Err) {
        Ok(Cow::Borrowed(_)) => Some(packet.into()),
        Ok(Cow::Owned(body)) => Some(format!("42{NAMESPACE},{id}{body}").into()),
        Err(refusal) => Some(refusal_packet(id, &refusal).into()),
    }
}

/// An event's arguments in a form that socketioxide can read: it finds the name of an event only where no escape is in it.
fn readable(body: &str) -> Result<Cow<'_, str>, ApiError> {
    let arguments: Vec<&RawValue> =
        serde_json::from_str(body).map_err(|error| ApiError::invalid(format!("malformed: {error}")))?;
    let name = arguments.first().map_or("", |name| name.get());
    if name.starts_with('"') && !name.contains('\\') {
        return Ok(body.into());
    }
    let text: String = serde_json::from_str(name)
        .map_err(|_| ApiError::invalid("the event has no name, which is a text"))?;
    let plain = serde_json::to_string(&text).unwrap_or_default();
    if plain.contains('\\') {
        let shown: String = text.chars().take(64).collect();
        return Err(ApiError::new(ErrorCode::UnknownEvent, format!("there is no event {shown:?}")));
    }
    let rest = arguments.iter().skip(1).map(|argument| argument.get());
    let arguments: Vec<&str> = std::iter::once(plain.as_str()).chain(rest).collect();
    Ok(format!("[{}]", arguments.join(",")).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(packet: &str) -> Result<Option<String>, CloseReason> {
        Gate::new(1000).text(packet).map(|passed| passed.map(Cow::into_owned))
    }

    #[test]
    fn what_socketioxide_understands_passes_as_it_is() {
        for packet in [
            "1",
            "2",
            "3",
            "40/jobs,",
            "40/jobs,{\"clientId\":\"c\"}",
            "41/jobs,",
            "43/jobs,1[]",
            "42[\"x\"]",
            "42/jobs,[\"subscribe:jobs\"]",
            "42/jobs,7[\"subscribe:jobs\",{\"jobId\":\"\\\"\"}]",
            "42/other,what",
            "42/jobs,[ \"subscribe:jobs\" , {} ]",
        ] {
            assert_eq!(judge(packet), Ok(Some(packet.to_owned())), "{packet}");
        }
        assert_eq!(judge("42/jobs,1[\"\\u0061\",2]"), Ok(Some("42/jobs,1[\"a\",2]".to_owned())));
    }

    #[test]
    fn what_it_does_not_understand_is_answered_or_ends_the_connection() {
        for (packet, starts) in [
            ("42/jobs,5[1]", "42/jobs,5[\"jobcast:refused\",\"invalid_payload\","),
            ("42/jobs,[", "42/jobs,[\"jobcast:refused\",\"invalid_payload\",\"malformed"),
            ("42/jobs,5[\"\\n\"]", "42/jobs,5[\"jobcast:refused\",\"unknown_event\","),
            ("42/jobs,9999999999999999999[\"x\"]", "42/jobs,[\"jobcast:refused\",\"invalid_payload\","),
            ("451-/jobs,3[\"x\",{\"_placeholder\":true,\"num\":0}]", "42/jobs,3[\"jobcast:refused\""),
        ] {
            let passed = judge(packet).expect(packet).expect(packet);
            assert!(passed.starts_with(starts), "{packet}: {passed}");
        }
        for packet in ["43/jobs,", "43/jobs,99999999999999999999[]", "461-/jobs,1[]", "451-/x,[\"x\"]"] {
            assert_eq!(judge(packet), Ok(None), "{packet}");
        }
        for packet in
            ["", "4", "5", "6", "2probe", "nonsense", "49", "45[\"x\"]", "4599999999-[\"x\"]", "é", "4é"]
        {
            assert_eq!(judge(packet), Err(CloseReason::Malformed), "{packet}");
        }
    }

    #[test]
    fn attachments_of_a_refused_packet_are_thrown_away_and_no_others() {
        let mut gate = Gate::new(1000);
        assert_eq!(gate.binary(), Err(CloseReason::Malformed));
        assert!(gate.text("452-/jobs,[\"x\"]").is_ok_and(|passed| passed.is_some()));
        assert_eq!(gate.binary(), Ok(()));
        assert!(gate.text("3").is_ok());
        assert_eq!(gate.binary(), Ok(()));
        assert_eq!(gate.binary(), Err(CloseReason::Malformed));
    }

    #[test]
    fn beyond_the_rate_events_are_refused_and_the_rest_is_dropped() {
        let mut gate = Gate::new(1);
        assert!(gate.text("40/jobs,").is_ok_and(|passed| passed.is_some()));
        assert!(gate.text("40/jobs,").is_ok_and(|passed| passed.is_none()));
        assert!(gate.text("3").is_ok_and(|passed| passed.is_some()));
        let refused = gate.text("42/jobs,8[\"x\"]").expect("not yet").expect("it is answered");
        assert!(refused.starts_with("42/jobs,8[\"jobcast:refused\",\"rate_limited\""), "{refused}");
    }

    proptest! {
        #[test]
        fn no_packet_panics(packet in "4?[0-9]?[0-9-]{0,3}(/jobs,)?[0-9]{0,3}.*") {
            let _ = judge(&packet);
        }
    }
}
