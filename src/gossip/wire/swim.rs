//! The form of foca's own part of a packet. Our own identity, to whom it is addressed, stands first where foca sees it, and is left
//! out or put there by [`super::packet`].

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};

use super::Malformed;
use crate::gossip::identity::Id;

pub(crate) struct Swim;

impl Codec<Id> for Swim {
    type Error = Malformed;

    fn encode_header(&mut self, header: &Header<Id>, mut out: impl BufMut) -> Result<(), Malformed> {
        header.dst.put(&mut out);
        header.src.put(&mut out);
        out.put_u16_le(header.src_incarnation);
        let (kind, other, number) = match header.message {
            Message::Ping(number) => (0, None, Some(number)),
            Message::Ack(number) => (1, None, Some(number)),
            Message::PingReq { target, probe_number } => (2, Some(target), Some(probe_number)),
            Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(probe_number)),
            Message::IndirectAck { target, probe_number } => (4, Some(target), Some(probe_number)),
            Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(probe_number)),
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::Broadcast => (9, None, None),
            Message::TurnUndead => (10, None, None),
        };
        out.put_u8(kind);
        if let Some(other) = other {
            other.put(&mut out);
        }
        if let Some(number) = number {
            out.put_u8(number);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut from: impl Buf) -> Result<Header<Id>, Malformed> {
        let dst = Id::get(&mut from)?;
        let src = Id::get(&mut from)?;
        let src_incarnation = from.try_get_u16_le()?;
        let kind = from.try_get_u8()?;
        let other = if matches!(kind, 2..=5) { Id::get(&mut from)? } else { src };
        let probe_number = if kind < 6 { from.try_get_u8()? } else { 0 };
        let message = match kind {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target: other, probe_number },
            3 => Message::IndirectPing { origin: other, probe_number },
            4 => Message::IndirectAck { target: other, probe_number },
            5 => Message::ForwardedAck { origin: other, probe_number },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            10 => Message::TurnUndead,
            _ => return Err(Malformed::Form),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Id>, mut out: impl BufMut) -> Result<(), Malformed> {
        // foca asks with what room is left, and takes a refusal for "no more".
        let size = if member.id().address.is_ipv6() { 35 } else { 23 };
        if out.remaining_mut() < size {
            return Err(Malformed::Form);
        }
        member.id().put(&mut out);
        out.put_u16_le(member.incarnation());
        out.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut from: impl Buf) -> Result<Member<Id>, Malformed> {
        let id = Id::get(&mut from)?;
        let incarnation = from.try_get_u16_le()?;
        let state = match from.try_get_u8()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Malformed::Form),
        };
        Ok(Member::new(id, incarnation, state))
    }
}
