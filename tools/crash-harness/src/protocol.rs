//! What a child tells its parent: a line for each event, through a pipe that survives its death.
//!
//! A line is written in one call, and is shorter than what a pipe takes at once, so lines of
//! several threads never mix, and their order is an order of what happened: a commit whose `acked`
//! line comes before a `begun` line had returned before that operation began. Children that work
//! beside each other write into one pipe, each line behind the number of its child, so this is
//! true of lines of different processes too.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::str::FromStr;

use crate::work::Id;
use crate::work::perform::Outcome;

/// The longest text in a line, well below what POSIX promises a pipe takes at once (512 bytes).
const TEXT_BYTES_MAX: usize = 400;

/// Something that happened in a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The child is there; its process id.
    Hello(u32),
    /// The store is open.
    Opened,
    /// An operation is about to be performed.
    Begun(Id),
    /// Its commit has returned.
    Acked(Id, Outcome),
    /// It has done all but its commit, and keeps the writer lock for ever.
    Holds(Id),
    /// Its call has failed, and nothing of it is there.
    Undone(Id),
    /// It was refused, because the process of this id had the writer lock for too long; 0 if the
    /// store could not say which.
    Refused(Id, u32),
    /// A snapshot is about to be taken.
    Looking,
    /// It held just what the operations up to this position make, whose chain is this.
    Saw(u64, u64),
    /// A reader has seen a value that this operation wrote.
    Seen(Id),
    /// A call of the store has failed.
    Failed(String),
    /// A promise was broken, as far as the child can see.
    Broken(String),
    /// The store was closed.
    Closed,
    /// The child is dead; said by who waited for its end, behind all that it said itself.
    Ended,
    /// What was found of unfinished operations is there for everybody; said by the parent itself,
    /// behind what children may have seen before that.
    Settled,
    /// The child has done all that it was to do, and counted something on the way.
    Done(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(process_id) => write!(f, "hello {process_id}"),
            Self::Opened => write!(f, "opened"),
            Self::Begun(id) => write!(f, "begun {id}"),
            Self::Acked(id, Outcome { found, position }) => {
                write!(f, "acked {id} {found} {position}")
            }
            Self::Holds(id) => write!(f, "holds {id}"),
            Self::Undone(id) => write!(f, "undone {id}"),
            Self::Refused(id, holder) => write!(f, "refused {id} {holder}"),
            Self::Looking => write!(f, "looking"),
            Self::Saw(position, chain) => write!(f, "saw {position} {chain}"),
            Self::Seen(id) => write!(f, "seen {id}"),
            Self::Failed(text) => write!(f, "failed {}", one_line(text)),
            Self::Broken(text) => write!(f, "broken {}", one_line(text)),
            Self::Closed => write!(f, "closed"),
            Self::Ended => write!(f, "ended"),
            Self::Settled => write!(f, "settled"),
            Self::Done(text) => write!(f, "done {}", one_line(text)),
        }
    }
}

impl FromStr for Event {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let event = match word {
            "hello" => Self::Hello(rest.parse().map_err(drop)?),
            "opened" => Self::Opened,
            "begun" => Self::Begun(rest.parse()?),
            "acked" => {
                let [id, found, position] = rest.split(' ').collect::<Vec<_>>()[..] else {
                    return Err(());
                };
                let found = found.parse().map_err(drop)?;
                let position = position.parse().map_err(drop)?;
                Self::Acked(id.parse()?, Outcome { found, position })
            }
            "holds" => Self::Holds(rest.parse()?),
            "undone" => Self::Undone(rest.parse()?),
            "refused" => {
                let (id, holder) = rest.split_once(' ').ok_or(())?;
                Self::Refused(id.parse()?, holder.parse().map_err(drop)?)
            }
            "looking" => Self::Looking,
            "saw" => {
                let (position, chain) = rest.split_once(' ').ok_or(())?;
                let number = |text: &str| text.parse().map_err(drop);
                Self::Saw(number(position)?, number(chain)?)
            }
            "seen" => Self::Seen(rest.parse()?),
            "failed" => Self::Failed(rest.to_owned()),
            "broken" => Self::Broken(rest.to_owned()),
            "closed" => Self::Closed,
            "ended" => Self::Ended,
            "settled" => Self::Settled,
            "done" => Self::Done(rest.to_owned()),
            _ => return Err(()),
        };
        Ok(event)
    }
}

/// `text` on one line, cut where it gets too long.
fn one_line(text: &str) -> String {
    let mut line = text.replace('\n', " ");
    let mut end = line.len().min(TEXT_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

/// The child's end of the pipe.
#[derive(Debug)]
pub(crate) struct Reporter {
    pipe: File,
    /// What each line begins with.
    name: String,
}

impl Reporter {
    /// Reports on the standard output.
    ///
    /// # Errors
    /// What the machine says.
    pub(crate) fn new() -> io::Result<Self> {
        let pipe = io::stdout().as_fd().try_clone_to_owned()?.into();
        let name = String::new();
        Ok(Self { pipe, name })
    }

    /// Says from now on which of several children this is.
    pub(crate) fn named(self, life: u16) -> Self {
        let name = format!("{life} ");
        Self { name, ..self }
    }

    /// Tells the parent. Without a parent there is nobody to work for: the process ends.
    pub(crate) fn say(&self, event: &Event) {
        let line = format!("{}{event}\n", self.name);
        let mut pipe = &self.pipe;
        if pipe.write_all(line.as_bytes()).is_err() {
            std::process::exit(crate::EXIT_ORPHAN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Outcome, TEXT_BYTES_MAX};
    use crate::work::Id;

    #[test]
    fn an_event_is_read_back_from_its_line() {
        let id = Id {
            life: 1,
            writer: 2,
            number: 3,
        };
        let outcome = Outcome {
            found: 4,
            position: 5,
        };
        let events = [
            Event::Hello(6),
            Event::Opened,
            Event::Begun(id),
            Event::Acked(id, outcome),
            Event::Holds(id),
            Event::Undone(id),
            Event::Refused(id, 7),
            Event::Looking,
            Event::Saw(8, u64::MAX),
            Event::Seen(id),
            Event::Failed("a b".to_owned()),
            Event::Broken("c".to_owned()),
            Event::Closed,
            Event::Ended,
            Event::Settled,
            Event::Done("d 7".to_owned()),
        ];
        for event in events {
            assert_eq!(event.to_string().parse(), Ok(event));
        }
        assert_eq!("acked 1.2.3".parse::<Event>(), Err(()));
        assert_eq!("".parse::<Event>(), Err(()));
    }

    #[test]
    fn a_long_text_stays_one_short_line() {
        let line = Event::Failed("ä\n".repeat(1000)).to_string();
        assert!(line.len() <= TEXT_BYTES_MAX + "failed ".len() && !line.contains('\n'));
    }
}
