/** What a publisher says. */
export interface Draft {
  jobId: string;
  progress: number;
  message?: string | undefined;
  userId?: string | undefined;
}

/** What watchers get. */
export interface JobEvent extends Draft {
  event: 'job:progress';
  status: 'in_progress';
  timestamp: string;
  /** Given when the event is kept. */
  seq?: number;
}

/** The event that a draft becomes, its fields in the order in which watchers get them. */
export function jobEvent({ jobId, progress, message, userId }: Draft, timestamp: string): JobEvent {
  return { event: 'job:progress', jobId, status: 'in_progress', progress, message, userId, timestamp, seq: undefined };
}
