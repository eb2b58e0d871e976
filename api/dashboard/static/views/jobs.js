// The list of jobs: rows that stay true.

export function mount() {}
