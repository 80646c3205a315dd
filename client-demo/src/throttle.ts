/**
 * Puts the calls of a short while together into one. Not requestAnimationFrame, which stands still
 * in a background tab while the events keep coming.
 */
export function throttle(run: () => void, milliseconds = 50): { call(): void; cancel(): void } {
  let timer: ReturnType<typeof setTimeout> | undefined;
  return {
    call() {
      timer ??= setTimeout(() => {
        timer = undefined;
        run();
      }, milliseconds);
    },
    cancel() {
      clearTimeout(timer);
      timer = undefined;
    },
  };
}
