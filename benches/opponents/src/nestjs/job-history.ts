import { Injectable } from '@nestjs/common';
import { Redis } from 'ioredis';
import type { JobEvent } from './job-event.js';

/** The newest hundred events of each job, newest first, for a day. */
@Injectable()
export class JobHistory {
  constructor(private readonly redis: Redis) {}

  /** Numbers and keeps events of one job. Calls end in the order of the numbers they gave. */
  async keep(jobId: string, events: JobEvent[]): Promise<void> {
    const json = events.map((event) => JSON.stringify(event));
    const last = await this.redis.keepEvents(listOf(jobId), `job-seq:${jobId}`, Date.now(), ...json);
    const first = last - events.length + 1;
    events.forEach((event, index) => (event.seq = first + index));
  }

  async newest(jobId: string): Promise<JobEvent | null> {
    const event = await this.redis.lindex(listOf(jobId), 0);
    return event === null ? null : JSON.parse(event);
  }

  /** The retained events above a number, oldest first. */
  async after(jobId: string, since: number): Promise<JobEvent[]> {
    const events = await this.redis.lrange(listOf(jobId), 0, -1);
    return events
      .map((event): Required<JobEvent> => JSON.parse(event))
      .filter((event) => event.seq > since)
      .reverse();
  }
}

const listOf = (jobId: string) => `job-history:${jobId}`;
