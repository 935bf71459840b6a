//! A store in memory. Several truths may share one, as control planes share an etcd.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};

use crate::control::store::{
    AppendError, Commit, Generation, News, Record, Step, Store, StoreError,
};
use crate::table::Delta;

/// See the [module](self).
pub(crate) struct Memory {
    line: Mutex<Vec<(Generation, Option<Arc<Delta>>)>>,
    faults: Mutex<VecDeque<AppendError>>,
    answers: Mutex<Answers>,
    newest: watch::Sender<u64>,
    /// A permit for each append that may go on.
    gate: Semaphore,
}

/// How the store says what follows on a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Step by step.
    #[default]
    Steps,
    /// Always the newest as a whole.
    Whole,
    /// Without the first step.
    Gap,
    /// Not at all.
    Fails,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            line: Mutex::default(),
            faults: Mutex::default(),
            answers: Mutex::default(),
            newest: watch::Sender::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

impl Memory {
    /// The next append ends so, and nothing is stored.
    pub(crate) fn fail(&self, error: AppendError) {
        self.faults.lock().unwrap().push_back(error);
    }

    pub(crate) fn answer(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    /// Appends wait until [`Memory::go`].
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn go(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Every generation there is, with its parent, oldest first.
    pub(crate) fn numbers(&self) -> Vec<(u64, u64)> {
        let line = self.line.lock().unwrap();
        line.iter()
            .map(|(entry, _)| (entry.record.generation, entry.record.parent))
            .collect()
    }

    /// As restoring an old backup does: only the first so many generations are there.
    pub(crate) fn put_back(&self, count: usize) {
        self.line.lock().unwrap().truncate(count);
    }

    fn last(&self) -> Option<Generation> {
        let line = self.line.lock().unwrap();
        line.last().map(|(generation, _)| generation.clone())
    }
}

#[async_trait]
impl Store for Memory {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn newest(&self) -> Result<Option<Generation>, StoreError> {
        match *self.answers.lock().unwrap() {
            Answers::Fails => Err(StoreError("it is gone".to_owned())),
            _ => Ok(self.last()),
        }
    }

    async fn append(&self, commit: &Commit) -> Result<(), AppendError> {
        let _permit = self.gate.acquire().await.unwrap();
        if let Some(fault) = self.faults.lock().unwrap().pop_front() {
            return Err(fault);
        }
        let mut line = self.line.lock().unwrap();
        let newest = line.last().map(|(last, _)| last.record.mark());
        if commit.parent != newest {
            return Err(AppendError::Conflict);
        }
        assert!(newest.is_none_or(|newest| commit.record.generation > newest.generation));
        let generation = Generation {
            record: commit.record.clone(),
            table: Arc::clone(&commit.table),
        };
        line.push((generation, commit.delta.clone()));
        drop(line);
        self.newest.send_replace(commit.record.generation);
        Ok(())
    }

    async fn since(&self, after: u64) -> Result<News, StoreError> {
        let answers = *self.answers.lock().unwrap();
        let line = self.line.lock().unwrap();
        let later = line
            .iter()
            .filter(|(entry, _)| entry.record.generation > after);
        let steps: Option<Vec<_>> = later
            .map(|(entry, delta)| Some((entry.record.clone(), delta.clone()?)))
            .collect();
        drop(line);
        let whole = || match self.last() {
            Some(newest) if newest.record.generation > after => News::Whole(newest),
            _ => News::Nothing,
        };
        Ok(match (answers, steps) {
            (Answers::Fails, _) => return Err(StoreError("it is gone".to_owned())),
            (Answers::Whole, _) | (_, None) => whole(),
            (_, Some(steps)) if steps.is_empty() => News::Nothing,
            (Answers::Steps, Some(steps)) => News::Steps(steps),
            (Answers::Gap, Some(mut steps)) => News::Steps(steps.split_off(1)),
        })
    }

    async fn recent(&self, most: usize, _most_bytes: usize) -> Result<Vec<Step>, StoreError> {
        let line = self.line.lock().unwrap();
        let mut steps = Vec::new();
        for pair in line.windows(2).rev().take(most) {
            let Some(delta) = &pair[1].1 else { break };
            steps.push(Step {
                from: pair[0].0.record.mark(),
                to: pair[1].0.record.mark(),
                delta: Arc::clone(delta),
            });
        }
        steps.reverse();
        Ok(steps)
    }

    async fn changed(&self, after: u64) {
        let mut newest = self.newest.subscribe();
        let _ = newest.wait_for(|newest| *newest > after).await;
    }

    async fn records(&self, before: Option<u64>, limit: usize) -> Result<Vec<Record>, StoreError> {
        let line = self.line.lock().unwrap();
        let records = line.iter().rev().map(|(entry, _)| entry.record.clone());
        let below = records.filter(|record| before.is_none_or(|before| record.generation < before));
        Ok(below.take(limit).collect())
    }

    async fn generation(&self, generation: u64) -> Result<Option<Generation>, StoreError> {
        let line = self.line.lock().unwrap();
        let found = line
            .iter()
            .find(|(entry, _)| entry.record.generation == generation);
        Ok(found.map(|(entry, _)| entry.clone()))
    }
}
