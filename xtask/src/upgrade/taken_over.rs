//! Both versions on one data directory, one after the other: the new one goes on with what the old one left in the middle, then the
//! old one is started on what the new one wrote.

use anyhow::{Context as _, Result};

use super::clients::{self, Doors};
use super::rolling::REFUSALS;
use super::{Kit, Stage, Told, build};
use crate::crash::judge;
use crate::crash::life::Start;
use crate::crash::project::{HELD, LIGHT};

pub(super) fn one_after_the_other(kit: &Kit) -> Result<Told> {
    let stage = Stage::set(kit)?;
    let has_approvals = build::knows(&kit.old, "approvals")?;
    let (agents, doors) = (if has_approvals { vec![LIGHT, HELD] } else { vec![LIGHT] }, Doors::default());
    let old = stage.old.serve()?;
    doors.set(&[old.port]);
    let held = if has_approvals { clients::hold(&stage, old.port, "oldheld", 2)? } else { Vec::new() };
    let ((), mut cases) = clients::under_load(&stage, "alone", &agents, &doors, || Ok(()))?;
    let (new, more) = clients::under_load(&stage, "killed", &agents, &doors, || {
        // In the middle of whatever it does.
        old.kill()?;
        doors.set(&[]);
        let new = stage.new.serve()?;
        doors.set(&[new.port]);
        Ok(new)
    })?;
    cases.extend(more);
    for held in held {
        match clients::finish(&stage, new.port, held, &[])? {
            Ok(case) => cases.push(case),
            Err((held, code)) => anyhow::bail!("{} was refused: {code}", held.run),
        }
    }
    let mut notes = Vec::new();
    let left = if has_approvals { clients::hold(&stage, new.port, "newheld", 1)? } else { Vec::new() };
    new.stop()?;
    let mut left = left.into_iter();
    match stage.old.start(&[])? {
        Start::Serving(old) => {
            doors.set(&[old.port]);
            let ((), more) = clients::under_load(&stage, "back", &agents, &doors, || Ok(()))?;
            cases.extend(more);
            if let Some(held) = left.next() {
                match clients::finish(&stage, old.port, held, &REFUSALS)? {
                    Ok(case) => cases.push(case),
                    Err((held, code)) => {
                        notes.push(format!("data directory, back: the old one leaves {} alone: {code}", held.run));
                        left = vec![held].into_iter();
                    }
                }
            }
            notes.push("data directory, back: the old one goes on".to_owned());
            old.stop()?;
        }
        Start::Died(_) => {
            let said = stage.old.said();
            let code = REFUSALS.iter().find(|code| said.contains(*code));
            let code = code.with_context(|| format!("the old one did not start, and does not say why:\n{said}"))?;
            notes.push(format!("data directory, back: the old one refuses it with `{code}`"));
        }
    }
    let new = stage.new.serve().context("after the way back")?;
    for held in left {
        match clients::finish(&stage, new.port, held, &[])? {
            Ok(case) => cases.push(case),
            Err((held, code)) => anyhow::bail!("{} was refused: {code}", held.run),
        }
    }
    new.stop()?;
    let wrong = judge::judge(&stage.new, &stage.witness, &cases)?;
    Ok(Told { runs: cases.len(), wrong: stage.strike(wrong), notes })
}
