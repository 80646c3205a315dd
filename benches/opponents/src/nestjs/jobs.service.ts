import { Injectable } from '@nestjs/common';
import { type Draft, type JobEvent, jobEvent } from './job-event.js';
import { JobHistory } from './job-history.js';
import { JobsGateway } from './jobs.gateway.js';

/** Publishing: first into history, then to the watchers. */
@Injectable()
export class JobsService {
  constructor(
    private readonly history: JobHistory,
    private readonly gateway: JobsGateway,
  ) {}

  async publish(drafts: Draft[]): Promise<JobEvent[]> {
    const timestamp = new Date().toISOString();
    const events = drafts.map((draft) => jobEvent(draft, timestamp));
    const jobs = new Map<string, JobEvent[]>();
    for (const event of events) {
      const ofJob = jobs.get(event.jobId);
      if (ofJob) ofJob.push(event);
      else jobs.set(event.jobId, [event]);
    }
    await Promise.all(Array.from(jobs, ([jobId, ofJob]) => this.publishJob(jobId, ofJob)));
    return events;
  }

  // Emits as soon as its own events are kept: waiting for other jobs of a batch would let later events overtake.
  private async publishJob(jobId: string, events: JobEvent[]): Promise<void> {
    await this.history.keep(jobId, events);
    for (const event of events) this.gateway.emit(event);
  }
}
