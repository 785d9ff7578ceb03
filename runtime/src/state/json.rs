//! The state of a session as JSON, for fronts in other languages.

use mobula_client::ClientError;
use serde::Serialize;

use super::snapshot::Observer;

impl Observer {
    /// Returns a part of the state as a JSON text, whose keys are the names of the types' fields: `tasks`, `summary`,
    /// `actors`, `workers`, `drivers`, `queues`, `objects`, `names`, `memory`, `overview`, `timeline`; `None` for any
    /// other word.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let observer = mobula::state::Observer::here()?;
    /// let drivers = observer.json("drivers")?.expect("it is one of the words");
    /// assert!(drivers.contains(&format!(r#""pid":{}"#, std::process::id())));
    /// assert_eq!(observer.json("weather")?, None);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn json(&self, what: &str) -> Result<Option<String>, ClientError> {
        let look = self.look()?;
        Ok(match what {
            "tasks" => text(&look.tasks()),
            "summary" => text(&look.summary()),
            "actors" => text(&look.actors()),
            "workers" => text(&look.workers()),
            "drivers" => text(&look.drivers()),
            "queues" => text(&look.queues()),
            "objects" => text(&look.objects(self)?),
            "names" => text(&look.names(self)?),
            "memory" => text(&look.memory(self)?),
            "overview" => text(&look.overview()),
            "timeline" => text(&look.timeline()),
            _ => None,
        })
    }
}

/// Writing cannot fail, because the types consist of numbers, texts and lists.
fn text(found: &impl Serialize) -> Option<String> {
    serde_json::to_string(found).ok()
}
