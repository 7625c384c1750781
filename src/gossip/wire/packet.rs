//! One packet: a line for the driver's socket, of at most [`PACKET_MAX`] bytes.
//!
//! ```text
//! version 1 · kind and flags 1 · to 4 (short, of the identity) · [coordinate 22] · [incarnation 2]
//!     · [length 2 · news: (length 2 · item)*] · body
//! ```
//! The body of `Swim` is foca's, without the identity it is addressed to; that of others is small and stands below. What
//! lies idle most of the time takes no byte: flags say what is there.

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member};

use super::{Malformed, PACKET_MAX, VERSION, swim::Swim};
use crate::{
    catalog::Coordinate,
    gossip::identity::{GENERATION_MAX, Id},
};

const KIND: u8 = 0b0000_0111;
const COORDINATE: u8 = 0b0001_0000;
const SUSPECT: u8 = 0b0010_0000;
const NEWS: u8 = 0b0100_0000;
const UPDATES: u8 = 0b1000_0000;
const SPARE: u8 = 0b0000_1000;

/// To whom a packet is addressed that is for whoever listens there.
const ANYONE: u32 = 0;

#[derive(Debug, Default)]
pub(crate) struct Packet {
    pub to: u32,
    pub coordinate: Option<Coordinate>,
    /// The sender suspects the one it writes to, in this incarnation.
    pub suspect: Option<u16>,
    pub news: Vec<Vec<u8>>,
    pub body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Swim {
        header: Header<Id>,
        updates: Vec<Member<Id>>,
    },
    /// News alone.
    News {
        from: Id,
    },
    /// The helper heard nothing from the one it asked for the probe.
    Nack {
        from: Id,
        number: u8,
    },
    /// Who has this key is down here, up to this generation.
    Down {
        from: Id,
        key: u64,
        generation: u64,
    },
    /// All that the sender knows, in one number.
    Root {
        from: Id,
        root: u64,
    },
    /// `other` has the receiver's name and another address. `born`: where the sender is the other one, when it started.
    Conflict {
        other: Id,
        born: Option<u64>,
    },
}

impl Default for Body {
    fn default() -> Body {
        Body::Root { from: Id::new(0, ([0, 0, 0, 0], 0).into(), 0), root: 0 }
    }
}

impl Packet {
    pub fn anyone(body: Body) -> Packet {
        Packet { to: ANYONE, body, ..Packet::default() }
    }

    pub fn to(id: &Id, body: Body) -> Packet {
        Packet { to: id.short(), body, ..Packet::default() }
    }

    /// Whether it is for this identity.
    pub fn is_for(&self, me: &Id) -> bool {
        self.to == me.short() || (self.to == ANYONE && !matches!(self.body, Body::Swim { .. }))
    }

    pub fn from(&self) -> Id {
        match &self.body {
            Body::Swim { header, .. } => header.src,
            Body::News { from }
            | Body::Nack { from, .. }
            | Body::Down { from, .. }
            | Body::Root { from, .. } => *from,
            Body::Conflict { other, .. } => *other,
        }
    }

    /// `me`: whom foca's part is for, since it does not say it. Everything must be used up.
    pub fn decode(mut from: &[u8], me: &Id) -> Result<Packet, Malformed> {
        if from.len() > PACKET_MAX {
            return Err(Malformed::Form);
        }
        if from.try_get_u8()? != VERSION {
            return Err(Malformed::Future);
        }
        let flags = from.try_get_u8()?;
        if flags & SPARE != 0 {
            return Err(Malformed::Future);
        }
        let to = from.try_get_u32_le()?;
        let coordinate = if flags & COORDINATE != 0 { Some(get_coordinate(&mut from)?) } else { None };
        let suspect = if flags & SUSPECT != 0 { Some(from.try_get_u16_le()?) } else { None };
        let mut news = Vec::new();
        if flags & NEWS != 0 {
            let length = usize::from(from.try_get_u16_le()?);
            let (mut items, rest) = from.split_at_checked(length).ok_or(Malformed::Form)?;
            while !items.is_empty() {
                let length = usize::from(items.try_get_u16_le()?);
                let (item, others) = items.split_at_checked(length).ok_or(Malformed::Form)?;
                news.push(item.to_vec());
                items = others;
            }
            from = rest;
        }
        let body = Self::body(flags, &mut from, me)?;
        if !from.is_empty() {
            return Err(Malformed::Form);
        }
        Ok(Packet { to, coordinate, suspect, news, body })
    }

    fn body(flags: u8, from: &mut &[u8], me: &Id) -> Result<Body, Malformed> {
        Ok(match flags & KIND {
            0 => {
                let mut whole = Vec::with_capacity(from.len() + 32);
                me.put(&mut whole);
                whole.extend_from_slice(from);
                let mut rest = &whole[..];
                let header = Swim.decode_header(&mut rest)?;
                let mut updates = Vec::new();
                if flags & UPDATES != 0 {
                    for _ in 0..rest.try_get_u16()? {
                        updates.push(Swim.decode_member(&mut rest)?);
                    }
                }
                *from = &from[from.len() - rest.len()..];
                Body::Swim { header, updates }
            }
            1 => Body::News { from: Id::get(from)? },
            2 => Body::Nack { from: Id::get(from)?, number: from.try_get_u8()? },
            3 => Body::Down {
                from: Id::get(from)?,
                key: from.try_get_u64_le()?,
                generation: from
                    .try_get_u64_le()
                    .map(|generation| (generation <= GENERATION_MAX).then_some(generation))?
                    .ok_or(Malformed::Form)?,
            },
            4 => Body::Root { from: Id::get(from)?, root: from.try_get_u64_le()? },
            5 => Body::Conflict {
                other: Id::get(from)?,
                born: Some(from.try_get_u64_le()?).filter(|born| *born != 0),
            },
            _ => return Err(Malformed::Future),
        })
    }

    /// Small bodies; foca's own bytes go by [`wrap`].
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let kind = match &self.body {
            Body::Swim { header, updates } => {
                return wrap(self, &swim_bytes(header, updates));
            }
            Body::News { from } => {
                from.put(&mut body);
                1
            }
            Body::Nack { from, number } => {
                from.put(&mut body);
                body.put_u8(*number);
                2
            }
            Body::Down { from, key, generation } => {
                from.put(&mut body);
                body.put_u64_le(*key);
                body.put_u64_le(*generation);
                3
            }
            Body::Root { from, root } => {
                from.put(&mut body);
                body.put_u64_le(*root);
                4
            }
            Body::Conflict { other, born } => {
                other.put(&mut body);
                body.put_u64_le(born.unwrap_or(0));
                5
            }
        };
        self.assemble(kind, &body)
    }

    fn assemble(&self, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + body.len());
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        out.put_u8(VERSION);
        out.put_u8(
            kind | flag(self.coordinate.is_some(), COORDINATE)
                | flag(self.suspect.is_some(), SUSPECT)
                | flag(!self.news.is_empty(), NEWS),
        );
        out.put_u32_le(self.to);
        if let Some(coordinate) = &self.coordinate {
            put_coordinate(&mut out, coordinate);
        }
        if let Some(incarnation) = self.suspect {
            out.put_u16_le(incarnation);
        }
        if !self.news.is_empty() {
            out.put_u16_le(self.news.iter().map(|item| item.len() + 2).sum::<usize>() as u16);
            for item in &self.news {
                out.put_u16_le(item.len() as u16);
                out.put_slice(item);
            }
        }
        out.put_slice(body);
        out
    }
}

/// A packet of foca's own bytes: the identity that it is for is left out, and so is an empty list of updates.
pub(crate) fn wrap(packet: &Packet, swim: &[u8]) -> Vec<u8> {
    let mut rest = swim;
    let known = Swim.decode_header(&mut rest);
    let to = if known.is_ok() && swim_is_six(swim) { 32 } else { 20 };
    let head = &swim[to.min(swim.len())..swim.len() - rest.len()];
    match rest {
        [] | [0, 0] => packet.assemble(0, head),
        _ => packet.assemble(UPDATES, &swim[to..]),
    }
}

/// What foca is given: whole again.
pub(crate) fn swim_bytes(header: &Header<Id>, updates: &[Member<Id>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + updates.len() * 24);
    Swim.encode_header(header, &mut out).expect("a header is always written");
    if !updates.is_empty() {
        out.put_u16(updates.len() as u16);
        for update in updates {
            Swim.encode_member(update, &mut out).expect("memory has room");
        }
    }
    out
}

fn swim_is_six(swim: &[u8]) -> bool {
    swim.get(13).is_some_and(|byte| byte & 0x80 != 0)
}

/// Its parts as the upper halves of floats: a part in 250, which is finer than what they tell.
fn put_coordinate(out: &mut Vec<u8>, coordinate: &Coordinate) {
    let mut put = |value: f64| out.put_u16_le(((value as f32).to_bits().saturating_add(0x8000) >> 16) as u16);
    (0..Coordinate::DIMENSIONS).for_each(|at| put(coordinate.vec.get(at).copied().unwrap_or(0.0)));
    [coordinate.height, coordinate.error, coordinate.adjustment].into_iter().for_each(put);
}

fn get_coordinate(from: &mut &[u8]) -> Result<Coordinate, Malformed> {
    let mut parts = [0.0; Coordinate::DIMENSIONS + 3];
    for part in &mut parts {
        *part = f64::from(f32::from_bits(u32::from(from.try_get_u16_le()?) << 16));
    }
    let [.., height, error, adjustment] = parts;
    Ok(Coordinate { vec: parts[..Coordinate::DIMENSIONS].into(), error, adjustment, height })
}
