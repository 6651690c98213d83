# Use this file to easily define all of your cron jobs.
# Learn more: http://github.com/javan/whenever

set :output, { error: 'log/cron.error.log', :standard => "log/cron.log" }
set :chronic_options, hours24: true
env :PATH, ENV['PATH']
env 'MAILTO', 'ops@example.com'
env :RAILS_MASTER_KEY, ENV.fetch("RAILS_MASTER_KEY")

job_type :sidekiq,  "cd :path && :environment_variable=:environment bundle exec sidekiq-client push :task :output"
base = "/srv/shop"
set :path, "#{base}/current"

def local(time) Time.zone.parse(time).localtime end
every 3.hours do # 1.minute 1.day 1.week 1.month 1.year is also supported
  runner "MyModel.some_process"
  rake "my:rake:task", output: nil
  command %q(/usr/bin/my_great_command --flag "a b" 'c')
end

every 1.day, at: ['4:30', '6:00 pm'], roles: [:app, :db] do
  runner 'Report.deliver(:daily, to: "boss@example.com")'
end

every :hour do rake "sitemap:refresh" end

every :sunday, :at => '12pm' do # Use any day of the week or :weekend, :weekday
  sidekiq "Weekly::DigestJob"
end

every '0 0 27-31 * *' do
  command "echo 'you can use raw cron syntax too' | mail -s %subject% root"
end

every 15.minutes, mailto: "dev@example.com" do
  script "poll_feed", output: "#{path}/log/feed.log"
end

# run this task only on servers with the :app role in Capistrano
every [:monday, :thursday], at: "0:05" do
  rake 'app_server:task'
end

if environment == 'staging'
  every 1.month, at: 'start of the month at 3am' do
    runner "Invoice.close!"
  end
end

%w[eu us].each do |region|
  every 2.days, at: 4 do
    rake "sync:#{region}"
  end
end

every :reboot do
  command "bin/warm_up"
end

every 30.seconds do
  command "too often"
end
Time.zone = "Europe/Berlin"
