use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::{Duration, Instant};

use crate::crash;
use crate::layout::{Slot, RING};
use crate::lock::CHECK;
use crate::map::Map;
use crate::owner;
use crate::parts::{futex_wait, futex_wake};
use crate::repair;

/// How long a place may keep the later ones waiting once it is its turn.
pub const HOLD_LIMIT: Duration = Duration::from_secs(2);

/// In place of an owner: this place needs no turn any more.
const DONE: u32 = u32::MAX;

/// A place in the order of sending of one key, from [`Guard::turn`](crate::Guard::turn).
///
/// Drop the guard, then [`wait`](Turn::wait), send, and drop this: the next place follows. Dropping it without waiting is
/// right too: the place is passed over when the order comes to it.
///
/// The tickets belong to the slot and only ever go up, so the order holds when the key is removed and its slot used by
/// another one. (Keys that share a slot one after the other then wait for each other a little, which does no harm.)
#[must_use = "dropped at once, it orders nothing"]
pub struct Turn<'a> {
    map: &'a Map,
    index: u32,
    ticket: u32,
    /// The ring knows whose ticket it is. Else there were more than [`RING`] places open.
    listed: bool,
}

impl std::fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("slot", &self.index)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

impl<'a> Turn<'a> {
    /// The caller holds the slot's lock, so nobody else takes a ticket meanwhile.
    pub(crate) fn take(map: &'a Map, index: u32) -> Turn<'a> {
        let slot = map.slot(index);
        let ticket = slot.turn_next.load(SeqCst);
        let listed = ticket.wrapping_sub(slot.turn_serving.load(SeqCst)) < RING as u32;
        if listed {
            // Before the ticket counts, so that an open ticket is never one of the dead without a name
            entry(slot, ticket).store(pack(ticket, owner::me()), SeqCst);
            crash::point();
        }
        slot.turn_next.store(ticket.wrapping_add(1), SeqCst);
        crash::point();
        Turn {
            map,
            index,
            ticket,
            listed,
        }
    }

    /// Waits until all earlier places are done; no system call if they are. Call it without any [`Guard`](crate::Guard).
    ///
    /// False if the order could not be kept: this call passed over an earlier place whose process died or held it longer
    /// than [`HOLD_LIMIT`]; or this place was passed over; or this very process holds an earlier place, which it cannot
    /// give up while it is in here (a nested event; what it sends now is in the place of the outer one). Go on and send all
    /// the same. (True does not say that no other waiter passed anybody over.)
    pub fn wait(&mut self) -> bool {
        debug_assert!(
            !repair::is_holding(),
            "waiting for a turn with a record locked"
        );
        self.until_served()
    }

    fn slot(&self) -> &'a Slot {
        self.map.slot(self.index)
    }

    fn until_served(&self) -> bool {
        let slot = self.slot();
        let mut in_order = true;
        let mut watched = None;
        loop {
            let serving = slot.turn_serving.load(SeqCst);
            let ahead = self.ticket.wrapping_sub(serving) as i32;
            if ahead <= 0 {
                return in_order && ahead == 0;
            }
            let holder = holder(slot, serving);
            if holder == Some(DONE) {
                advance(slot, serving);
                continue;
            }
            if holder == Some(owner::me()) {
                return false;
            }
            let since = match watched {
                Some((ticket, since)) if ticket == serving => since,
                _ => {
                    let now = Instant::now();
                    watched = Some((serving, now));
                    now
                }
            };
            futex_wait(&slot.turn_serving, serving, CHECK);
            if slot.turn_serving.load(SeqCst) != serving {
                continue;
            }
            let given_up = holder.is_some_and(owner::is_dead) || since.elapsed() >= HOLD_LIMIT;
            // The holder may have finished, and even ended, while we asked: only the exchange tells
            if given_up && advance(slot, serving) {
                in_order = false;
                self.map.header().turns_skipped.fetch_add(1, Relaxed);
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let slot = self.slot();
        if advance(slot, self.ticket)
            || (slot.turn_serving.load(SeqCst).wrapping_sub(self.ticket) as i32) > 0
        {
            return;
        }
        if self.listed {
            entry(slot, self.ticket).store(pack(self.ticket, DONE), SeqCst);
        } else {
            self.until_served();
        }
        // Either the one before us sees the mark, or we see that it went on to us
        advance(slot, self.ticket);
    }
}

/// Goes from this ticket to the next that is not done. False if it is not this ticket's turn (any more).
///
/// All of this is sequentially consistent: "mark done, then look whether it is our turn" meets "pass the turn on, then
/// look for a mark", and "pass it on, then look for later tickets" meets "take a ticket, then look whose turn it is".
fn advance(slot: &Slot, ticket: u32) -> bool {
    let mut at = ticket;
    loop {
        let next = at.wrapping_add(1);
        if slot
            .turn_serving
            .compare_exchange(at, next, SeqCst, SeqCst)
            .is_err()
        {
            break;
        }
        crash::point();
        at = next;
        if holder(slot, at) != Some(DONE) {
            break;
        }
    }
    if at == ticket {
        return false;
    }
    // Nobody can sleep when no later ticket was given out
    if slot.turn_next.load(SeqCst) != at {
        futex_wake(&slot.turn_serving, i32::MAX);
    }
    true
}

/// Whose ticket that is, as far as the ring knows.
fn holder(slot: &Slot, ticket: u32) -> Option<u32> {
    let value = entry(slot, ticket).load(SeqCst);
    let owner = value as u32;
    ((value >> 32) as u32 == ticket && owner != 0).then_some(owner)
}

fn entry(slot: &Slot, ticket: u32) -> &AtomicU64 {
    &slot.turn_ring[ticket as usize % RING]
}

fn pack(ticket: u32, owner: u32) -> u64 {
    (u64::from(ticket) << 32) | u64::from(owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{bench, fork, Child, MIB};

    /// Bounded sleeping would hide a forgotten wake, so this waiter sleeps for long.
    #[test]
    fn end_of_a_turn_wakes_a_sleeper() {
        let bench = bench();
        let (arena, _) = bench.open(MIB);
        let (first, second) = (Turn::take(arena.map(), 0), Turn::take(arena.map(), 0));
        let serving = &arena.map().slot(0).turn_serving;
        let sleeper = fork(|| {
            while serving.load(SeqCst) == 0 {
                futex_wait(serving, 0, Duration::from_secs(60));
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        drop(first);
        assert!(Child::join(sleeper));
        drop(second);
        assert_eq!(serving.load(SeqCst), 2);
        // The last in order passes over all that are done, so that the ring is not filled by them
        let (first, second, third) = (
            Turn::take(arena.map(), 0),
            Turn::take(arena.map(), 0),
            Turn::take(arena.map(), 0),
        );
        drop(third);
        drop(second);
        assert_eq!(serving.load(SeqCst), 2);
        drop(first);
        assert_eq!(serving.load(SeqCst), 5);
    }
}
