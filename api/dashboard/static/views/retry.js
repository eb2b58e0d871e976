// Looks again whether the service can answer, with growing pauses and jitter, so that many tabs don't come at once.

const FIRST_S = 2;
const LONGEST_S = 30;

export function mount(section) {
  const words = section.querySelector("[data-left]");
  let pauseS = FIRST_S;
  const look = async () => {
    try {
      const response = await fetch(location.href, { headers: { "X-Part": "main" } });
      if (response.status !== 503) {
        location.reload();
        return;
      }
    } catch {
      // Nobody answers yet.
    }
    pauseS = Math.min(pauseS * 2, LONGEST_S);
    wait();
  };
  const wait = () => {
    const leftMs = pauseS * 1000 * (0.75 + Math.random() / 2);
    words.textContent = `Next look in ${Math.round(leftMs / 1000)} s.`;
    setTimeout(look, leftMs);
  };
  wait();
}
