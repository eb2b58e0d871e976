// The list of studies: its rows are read again when a study or one of its trials changes.

import { keepTrue } from "./study_page.js";

export function mount() {
  keepTrue(["rows"], ({ kind }) => kind !== "training");
}
