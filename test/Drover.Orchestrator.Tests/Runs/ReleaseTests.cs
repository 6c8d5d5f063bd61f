using System.Diagnostics;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.Runs;
using Drover.TestKit;

namespace Drover.Orchestrator.Tests.Runs;

/// <summary>What ends or gives back an attempt from outside: a person, a limit, the machine. None of it is the agent's failure.</summary>
[Trait("Speed", "slow")]
public sealed class ReleaseTests
{
    private static Task<List<string>> EventsAsync(RunFixture repo, string task, string type) => repo.BacklogAsync(tx => tx.Session.Query(
        "SELECT data FROM {d}task_events WHERE task = @t AND type = @type ORDER BY seq", r => r.GetString(0), ("@t", task), ("@type", type)));

    // The wait is the product's answer to a limit; the tests say that it is over instead of sitting through it.
    private static Task<int> EndWaitAsync(RunFixture repo, string task) => repo.BacklogAsync(tx =>
        tx.Session.Execute("UPDATE {d}tasks SET not_before = NULL WHERE id = @t", ("@t", task)));

    [Fact]
    public async Task A08_cancel_stops_a_running_agent_and_retry_runs_it_again()
    {
        await using var repo = new RunFixture();
        repo.Script("""
            case "$DROVER_TASK_TITLE" in
                Hang*) if [ ! -e "$state/hung" ]; then touch "$state/hung"; exec sleep 3600; fi; echo c > c.txt ;;
                *) until_file go; echo d > d.txt ;;
            esac
            echo did it
            """);
        string task = await repo.AddAsync("Hang until cancelled");
        string other = await repo.AddAsync("Go on beside it");
        await using RunHost host = await repo.StartAsync(new() { Workers = 2 });
        await Eventually.TrueAsync(() => File.Exists(repo.State("hung")), "the agent runs");
        CancelAnswer answer = await TaskControl.CancelAsync(host.Client, repo.Project, task, "not wanted");
        Assert.Equal(CancelResult.Cancelled, answer.Result);
        Assert.Equal(StoredStatus.Cancelled, (await repo.TaskAsync(task)).Status);
        await Eventually.TrueAsync(() => !ProcessScan.In(repo.Root).Any(p => p.Command.Contains("sleep 3600", StringComparison.Ordinal)), "the agent is ended");
        Assert.Empty(repo.Landed());

        TaskRow opened = await TaskControl.RetryAsync(host.Client, repo.Project, task, force: false, maxAttempts: 3);
        Assert.Equal(StoredStatus.Open, opened.Status);
        await Eventually.TrueAsync(() => repo.Landed().Contains(task), "the live run lands it");
        File.WriteAllText(repo.State("go"), "");
        Assert.Equal(0, (await host.Completion).ExitCode);
        Assert.Equal([task, other], repo.Landed());
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal((StoredStatus.Completed, 2), (row.Status, row.Attempts));
        await repo.NoSurvivorAsync();
    }

    [Fact]
    public async Task A09_a_limit_consumes_no_attempt_and_the_same_one_goes_on()
    {
        await using var repo = new RunFixture();
        repo.Script("if [ ! -e once.txt ]; then echo x > once.txt; echo usage limit reached; exit 75; fi\necho y > two.txt\necho did it");
        string task = await repo.AddAsync("Meet a limit and go on");
        await using (RunHost host = await repo.StartAsync(new() { MaxAttempts = 1 }))
        {
            await Eventually.TrueAsync(async () => (await EventsAsync(repo, task, "task.released")).Count > 0, "the task is released");
            TaskRow row = await repo.TaskAsync(task);
            Assert.Equal((StoredStatus.Open, 1, 1, 1), (row.Status, row.Attempts, row.Consumed, row.Continues));
            Assert.Contains("\"limit\"", Assert.Single(await EventsAsync(repo, task, "task.released")), StringComparison.Ordinal);
            Assert.Empty(await EventsAsync(repo, task, "task.failed"));
            await host.StopAgentsAsync();
            Assert.Equal(130, (await host.Completion).ExitCode);
        }
        await EndWaitAsync(repo, task);
        // With one attempt at most: had the limit consumed it, nothing could run any more.
        Assert.Equal(0, (await repo.RunAsync(new() { MaxAttempts = 1 })).ExitCode);
        Assert.Equal([task], repo.Landed());
        Assert.True(File.Exists(Path.Combine(repo.Root, "once.txt")));
        TaskRow done = await repo.TaskAsync(task);
        Assert.Equal((1, 1), (done.Attempts, done.Consumed));
    }

    [Fact]
    public async Task A09_the_fake_agents_limit_is_a_limit()
    {
        await using var repo = new RunFixture();
        string task = await repo.AddAsync("Meet a limit at once", "fake: limit");
        await using RunHost host = await repo.StartAsync(new() { MaxAttempts = 1 });
        await Eventually.TrueAsync(async () => (await EventsAsync(repo, task, "task.released")).Count > 0, "the task is released");
        TaskRow row = await repo.TaskAsync(task);
        Assert.Equal((StoredStatus.Open, 1, 1), (row.Status, row.Attempts, row.Continues));
        await host.StopAgentsAsync();
        Assert.Equal(130, (await host.Completion).ExitCode);
    }

    [Fact]
    public async Task A_full_disk_releases_the_task_and_it_goes_on_when_there_is_space()
    {
        Assert.SkipUnless(Environment.UserName == "root" && OperatingSystem.IsLinux(), "NOT TESTED: a full disk needs root, to mount a small tmpfs");
        using var disk = new SmallDisk("2m");
        await using var repo = new RunFixture();
        repo.Set("worktree.root", disk.Path);
        disk.Fill();
        string task = await repo.AddAsync("Work on a full disk", "fake: edit x.txt \"x\"");
        await using (RunHost host = await repo.StartAsync(new() { MaxAttempts = 1 }))
        {
            await Eventually.TrueAsync(async () => (await EventsAsync(repo, task, "task.released")).Count > 0, "the task is released");
            Assert.Contains("\"disk\"", (await EventsAsync(repo, task, "task.released"))[0], StringComparison.Ordinal);
            TaskRow row = await repo.TaskAsync(task);
            Assert.Equal((StoredStatus.Open, 1, 1), (row.Status, row.Attempts, row.Continues));
            disk.Free();
            await EndWaitAsync(repo, task);
            Assert.Equal(0, (await host.Completion).ExitCode);
        }
        Assert.Equal([task], repo.Landed());
        TaskRow done = await repo.TaskAsync(task);
        Assert.Equal((1, 1), (done.Attempts, done.Consumed));
    }

    /// <summary>A file system of its own, so small that a test can fill it.</summary>
    private sealed class SmallDisk : IDisposable
    {
        private readonly TempFolder _folder = new("disk");

        public SmallDisk(string size) => Run("mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", Path);

        public string Path => _folder.Path;

        private string Filler => System.IO.Path.Combine(Path, "filler");

        public void Fill()
        {
            using FileStream file = File.Create(Filler, 1);
            byte[] page = new byte[4096];
            try
            {
                while (true)
                    file.Write(page);
            }
            catch (IOException)
            {
                // That is what full means.
            }
        }

        public void Free() => File.Delete(Filler);

        private static void Run(string program, params string[] arguments)
        {
            using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true })!;
            string error = process.StandardError.ReadToEnd();
            process.WaitForExit();
            Assert.True(process.ExitCode == 0, $"{program}: {error}");
        }

        public void Dispose()
        {
            Run("umount", "--lazy", Path);
            _folder.Dispose();
        }
    }
}
