import {
  BadRequestException,
  Body,
  Controller,
  HttpCode,
  Param,
  PayloadTooLargeException,
  Post,
  UnprocessableEntityException,
} from '@nestjs/common';
import type { Draft, JobEvent } from './job-event.js';
import { JobsService } from './jobs.service.js';

@Controller('api')
export class JobsController {
  constructor(private readonly jobs: JobsService) {}

  @Post('jobs/:jobId/progress')
  @HttpCode(200)
  async progress(@Param('jobId') jobId: string, @Body() body: Omit<Draft, 'jobId'>) {
    const draft = { ...body, jobId };
    check(draft);
    const [event] = await this.jobs.publish([draft]);
    return receipt(event!);
  }

  @Post('events')
  @HttpCode(200)
  async batch(@Body() drafts: Draft[]) {
    if (!Array.isArray(drafts)) throw new BadRequestException('an array of events is expected');
    if (drafts.length > 1000) throw new PayloadTooLargeException('at most 1,000 events');
    drafts.forEach(check);
    const events = await this.jobs.publish(drafts);
    return { results: events.map(receipt) };
  }
}

function check(draft: Draft | null): void {
  if (typeof draft?.jobId !== 'string') throw new UnprocessableEntityException('jobId: a string is expected');
  if (!(draft.progress >= 0 && draft.progress <= 100)) {
    throw new UnprocessableEntityException('progress: a number from 0 to 100 is expected');
  }
}

const receipt = ({ jobId, seq, timestamp }: JobEvent) => ({ jobId, seq, timestamp });
