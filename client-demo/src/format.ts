import type { JobEvent, Json } from './jobcast/protocol';

const MAX_TEXT = 4_000;

/** For showing: a job may hold megabytes, and a page has no use for them. */
export function clip(text: string, length = MAX_TEXT): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

export function oneLine(value: Json): string {
  if (typeof value === 'string') return clip(value, 300);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return clip(
      Object.entries(value)
        .map(([key, item]) => `${key}: ${typeof item === 'string' ? item : JSON.stringify(item)}`)
        .join(' · '),
      300,
    );
  }
  return clip(JSON.stringify(value), 300);
}

export function pretty(value: Json): string {
  return clip(typeof value === 'string' ? value : JSON.stringify(value, null, 2));
}

export function percent(progress: number): string {
  return `${Math.floor(progress)}%`;
}

const time = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
});

export function clock(timestamp: string): string {
  return time.format(new Date(timestamp));
}

export function statusLabel(status: string): string {
  return clip(status.replaceAll('_', ' '), 64);
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString('en')} ${number === 1 ? one : many}`;
}

export function describe(event: JobEvent): string {
  switch (event.event) {
    case 'job:update':
      return event.data === null ? '' : oneLine(event.data);
    case 'job:progress':
      return clip(event.message ?? '', 300);
    case 'job:completed':
      return event.result === null ? '' : oneLine(event.result);
    case 'job:error':
      return clip(event.error, 300);
  }
}
