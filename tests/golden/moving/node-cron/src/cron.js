const cron = require('node-cron');
const schedule = require("node-schedule");
const { CronJob } = require('cron');

// first Monday of the month: node-cron wants both
const firstMonday = cron.schedule("30 9 1-7 * Monday", () => { console.log("it's Monday"); }, {
  scheduled: true,
  timezone: "Europe/Berlin",
  name: 'first-monday'
});
cron.schedule('0 0 13 * 5', friday13);
cron.schedule('*/30 * * * * *', async function pingUpstream() { await ping() });
CronJob.from({ cronTime: '0 30 6 1 0 *', onTick: yearly, start: true, timeZone: 'America/Los_Angeles' });
schedule.scheduleJob('invoice', { hour: 14, minute: 30, dayOfWeek: [1, 3], tz: 'Etc/UTC' }, sendInvoices);
schedule.scheduleJob({ minute: 5, hour: 14, date: 13, dayOfWeek: 5, start: soon }, fridays);
schedule.scheduleJob({ rule: '0 12 * * 0-5/2' }, lunch);
schedule.scheduleJob(new Date(2026, 11, 21, 5, 30, 0), once);
array.from([1, 2]); list.every(x => x > 0); set.add({ repeat: true });
@Cron('45 * * * * *', { name: 'nest', timeZone: 'Asia/Tokyo' })
@Interval(10_000)
@Cron(CronExpression.MONDAY_TO_FRIDAY_AT_11PM)
@Cron(CronExpression.EVERY_NOW_AND_THEN)
agenda.every('3 minutes', 'delete old users', { limit: 5 });
