import { Queue } from 'bullmq';
import cron from "node-cron"
import { CronJob } from 'cron';
const emailQueue = new Queue<EmailJob>('email', { connection });
const NIGHTLY = `0 3 * * *`;
const MINUTE = 60 * 1000;
// every night
await emailQueue.add('digest', { kind: "daily" }, { repeat: { pattern: NIGHTLY, tz: 'Europe/Berlin', limit: 5 }, attempts: 3, backoff: { type: 'exponential', delay: 1000 } });
await emailQueue.upsertJobScheduler("poll", { every: 5 * MINUTE }, { name: 'poll-job', data: {a: 1, b: ['x']}, opts: { removeOnComplete: true } });
cron.schedule('0 0 1-7 * 1', async () => { await report(); }, { timezone: "America/New_York" });
new CronJob('*/10 * * * * *', tick, null, true, 'UTC');
cron.schedule(process.env.CRON ?? '* * * * *', () => x());
/*
 * A legacy Bull job: `cron`, and a name that is computed
 */
const reports = new Queue("reports");
reports.add({ region: region }, { repeat: { cron: "0 8 * * MON-FRI", startDate: new Date("2026-01-01") }, priority: 3 });
for (const tenant of tenants) {
  await reports.upsertJobScheduler(`tenant-${tenant.id}`, { pattern: "0 0 L * *" }, { data: { tenant } });
}
const fast = { every: 250 };
reports.upsertJobScheduler('fast', fast, { opts: { removeOnComplete: { age: 3600 } } });
const re = /queue.add\("x", {}, { repeat: {} }\)/g; // a regular expression, no job
// emailQueue.add('commented-out', {}, { repeat: { every: 1000 } })
