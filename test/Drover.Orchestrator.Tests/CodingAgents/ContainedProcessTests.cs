using System.Diagnostics;
using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Tests.CodingAgents;

[Trait("Speed", "slow")]
public sealed class ContainedProcessTests : IDisposable
{
    private const string DaemonsWithAndWithoutToken =
        "(setsid sleep 3600 &) >/dev/null 2>&1; (env -i /bin/sh -c 'setsid sleep 3600 & exit' >/dev/null 2>&1 &); setsid /bin/sh -c 'trap \"\" TERM HUP; sleep 3600; :' & ";

    private readonly ContainedTestFolder folder = new();

    public void Dispose() => folder.Dispose();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static Task<ProcessOutcome> RunAsync(ContainedProcessSpec spec, ProcessHooks? hooks = null, TimeProvider? time = null) =>
        ContainedProcess.RunAsync(spec, hooks ?? new(), time ?? TimeProvider.System, Token);

    [Fact]
    public async Task Output_of_both_streams_arrives_in_lines_and_in_the_log()
    {
        var lines = new List<OutputLine>();
        var spec = folder.Shell("echo one; echo two >&2; printf three; exit 3");
        var outcome = await RunAsync(spec, new() { OnLine = lines.Add });
        Assert.Equal(ProcessEnd.Exited, outcome.End);
        Assert.Equal(3, outcome.ExitCode);
        Assert.Equal(["one", "three", "two"], lines.Select(line => line.Text).Order());
        Assert.True(lines.Single(line => line.Text == "two").IsError);
        Assert.Equal(["one", "three", "two"], File.ReadAllLines(spec.LogPath).Order());
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(spec.LogPath));
        TestContext.Current.TestOutputHelper!.WriteLine($"keeper ready after {outcome.KeeperStart.TotalMilliseconds:F0} ms");
    }

    [Fact]
    public async Task The_keeper_and_the_program_are_made_known_before_the_program_exists_and_after()
    {
        var marker = Path.Combine(folder.Worktree, "ran");
        var seen = new List<string>();
        ProcessIdentity? program = null;
        await RunAsync(folder.Shell("touch ran; cat /proc/$$/stat | cut -d' ' -f6; echo $$"), new()
        {
            OnReady = keeper =>
            {
                Assert.True(keeper.IsAlive);
                Assert.False(File.Exists(marker));
                Assert.Equal(keeper.Pid, ProcessTable.Read(keeper.Pid)!.Session); // Ctrl+C at a terminal does not reach it
                seen.Add("ready");
                return Task.CompletedTask;
            },
            OnStarted = (_, child) =>
            {
                program = child;
                return Task.CompletedTask;
            },
            OnLine = line => seen.Add(line.Text),
        });
        // Its session is its own: the session id is its pid.
        Assert.Equal(["ready", $"{program!.Pid}", $"{program.Pid}"], seen);
        Assert.False(program.IsAlive);
    }

    [Fact]
    public async Task X10_the_program_gets_no_input_no_descriptors_default_signals_and_only_the_given_environment()
    {
        folder.Environment["GIVEN"] = "yes";
        var outcome = await RunAsync(folder.Shell("cat; ls -x -w 999 /proc/$$/fd; env | grep -v '^PWD=\\|^_=\\|^SHLVL=\\|^OLDPWD=' | sort; kill -INT $$; echo alive"));
        var lines = outcome.Tail.Split('\n');
        Assert.Equal(["0", "1", "2"], lines[0].Split(' ', StringSplitOptions.RemoveEmptyEntries));
        Assert.Equal([$"DROVER_RUN_TOKEN={folder.RunToken}", "GIVEN=yes", $"PATH={folder.Environment["PATH"]}"], lines[1..]);
        Assert.Equal(2, outcome.Signal);
    }

    [Fact]
    public async Task X02_daemons_of_every_shape_end_with_the_program()
    {
        var outcome = await RunAsync(folder.Shell(DaemonsWithAndWithoutToken + "echo parent done"));
        Assert.Equal(ProcessEnd.Exited, outcome.End);
        Assert.Equal(0, outcome.ExitCode);
        Assert.Empty(outcome.Survivors);
        Assert.True(outcome.LeftoversEnded >= 3, $"{outcome.LeftoversEnded}");
        Assert.True(folder.NothingCarriesTheToken());
    }

    [Fact]
    public async Task X02_a_stop_asks_first_and_lets_the_program_answer()
    {
        using var stop = new CancellationTokenSource();
        var spec = folder.Shell("trap 'echo saved; exit 7' TERM; echo up; while :; do sleep 0.05; done");
        var outcome = await ContainedProcess.RunAsync(
            spec, new() { OnLine = line => { if (line.Text == "up") stop.Cancel(); } }, TimeProvider.System, stop.Token);
        Assert.Equal(ProcessEnd.Stopped, outcome.End);
        Assert.Equal(7, outcome.ExitCode);
        Assert.Contains("saved", outcome.Tail, StringComparison.Ordinal);
        Assert.True(folder.NothingCarriesTheToken());
    }

    [Fact]
    public async Task X02_who_ignores_the_stop_is_killed_after_the_grace()
    {
        using var stop = new CancellationTokenSource();
        var spec = folder.Shell("trap '' TERM; echo up; while :; do sleep 0.05; done") with { StopGrace = TimeSpan.FromMilliseconds(200) };
        var outcome = await ContainedProcess.RunAsync(
            spec, new() { OnLine = line => stop.Cancel() }, TimeProvider.System, stop.Token);
        Assert.Equal(ProcessEnd.Stopped, outcome.End);
        Assert.Equal(Native.SigKill, outcome.Signal);
    }

    [Fact]
    public async Task A_kill_does_not_wait_for_the_grace_and_reaches_stopped_processes()
    {
        using var kill = new CancellationTokenSource();
        var spec = folder.Shell("trap '' TERM; (sleep 3600 & kill -STOP $!); echo up; sleep 3600") with { StopGrace = TimeSpan.FromHours(1) };
        var outcome = await RunAsync(spec, new() { Kill = kill.Token, OnLine = line => kill.Cancel() });
        Assert.Equal(ProcessEnd.Stopped, outcome.End);
        Assert.Equal(Native.SigKill, outcome.Signal);
        Assert.True(folder.NothingCarriesTheToken());
    }

    [Theory]
    [InlineData(nameof(ProcessEnd.SilenceClock), 15)]
    [InlineData(nameof(ProcessEnd.TotalClock), 61)]
    public async Task D9_clocks_end_a_program_that_does_not_end(string clock, int minutes)
    {
        var time = new ManualTime();
        var spec = folder.Shell("echo up; sleep 3600");
        if (clock == nameof(ProcessEnd.TotalClock))
            spec = spec with { Clocks = spec.Clocks with { Silence = null } };
        var outcome = await RunAsync(spec, new() { OnLine = _ => time.Advance(TimeSpan.FromMinutes(minutes)) }, time);
        Assert.Equal(clock, outcome.End.ToString());
        Assert.True(folder.NothingCarriesTheToken());
    }

    [Fact]
    public async Task D9_a_silence_clock_that_is_late_because_we_stood_still_counts_anew()
    {
        var time = new ManualTime();
        var beforeLast = false;
        var outcome = await RunAsync(folder.Shell("trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done") with { Clocks = new(null, TimeSpan.FromMinutes(15), null) }, new()
        {
            OnLine = line =>
            {
                if (line.Text == "asked")
                    Assert.True(beforeLast);
                if (line.Text != "up")
                    return;
                time.Advance(TimeSpan.FromMinutes(45)); // late: starts again
                time.Advance(TimeSpan.FromMinutes(14));
                beforeLast = true;
                time.Advance(TimeSpan.FromMinutes(1));
            },
        }, time);
        Assert.Equal(ProcessEnd.SilenceClock, outcome.End);
    }

    [Fact]
    public async Task D9_the_start_clock_runs_only_when_configured_and_until_the_first_output()
    {
        var time = new ManualTime();
        var spec = folder.Shell("sleep 3600") with { Clocks = new(TimeSpan.FromMinutes(1), null, null) };
        var outcome = await RunAsync(spec, new() { OnStarted = (_, _) => { time.Advance(TimeSpan.FromMinutes(2)); return Task.CompletedTask; } }, time);
        Assert.Equal(ProcessEnd.StartClock, outcome.End);
        outcome = await RunAsync(folder.Shell("echo up; echo; exit 4") with { Clocks = spec.Clocks },
            new() { OnLine = _ => time.Advance(TimeSpan.FromMinutes(2)) }, time);
        Assert.Equal(4, outcome.ExitCode);
    }

    [Fact]
    public async Task X05_a_flood_leaves_a_bounded_log_with_its_beginning_and_its_end()
    {
        var spec = folder.Shell("echo first; head -c 10000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo; echo last") with { OutputCap = 1 << 20 };
        var outcome = await RunAsync(spec);
        Assert.Equal(0, outcome.ExitCode);
        Assert.True(outcome.OutputBytes > 10_000_000);
        Assert.InRange(new FileInfo(spec.LogPath).Length, 700_000, (1 << 20) + 200);
        var log = File.ReadAllLines(spec.LogPath);
        Assert.Equal("first", log[0]);
        Assert.Equal("last", log[^1]);
        Assert.Single(log, line => line == $"[drover: {outcome.LeftOutBytes} bytes left out here]");
        Assert.Equal([spec.LogPath], Directory.GetFiles(folder.Root));
        Assert.EndsWith("last", outcome.Tail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task X05_one_endless_line_is_cut_for_the_caller_and_counts_as_one()
    {
        var lines = new List<OutputLine>();
        var outcome = await RunAsync(
            folder.Shell("head -c 1000000 /dev/zero | tr '\\0' 'y'; echo; echo after") with { LineCap = 1000 }, new() { OnLine = lines.Add });
        Assert.Equal(1_000_007, outcome.OutputBytes);
        Assert.Equal(2, lines.Count);
        Assert.Equal(1000, lines[0].Text.Length);
        Assert.True(lines[0].Cut);
        Assert.Equal(new OutputLine(false, "after", false), lines[1]);
    }

    [Fact]
    public async Task L03_secrets_reach_neither_the_log_nor_the_caller()
    {
        const string Secret = "hunter2-hunter2";
        var lines = new List<OutputLine>();
        var spec = folder.Shell("echo 'a hunter2-hunter2 b'; printf hunter2-; sleep 0.1; echo hunter2; echo k=" + "gh" + "p_" + new string('a', 36)) with { Secrets = [Secret] };
        var outcome = await RunAsync(spec, new() { OnLine = lines.Add });
        Assert.Equal(["a [redacted] b", "[redacted]", "k=[redacted]"], lines.Select(line => line.Text));
        Assert.Equal(lines.Select(line => line.Text), File.ReadAllLines(spec.LogPath));
        Assert.DoesNotContain(Secret, outcome.Tail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_lost_keeper_makes_the_outcome_unknown_and_its_tree_is_swept()
    {
        ProcessIdentity? keeper = null;
        List<ProcessIdentity> family = [];
        var script = DaemonsWithAndWithoutToken.Replace("env -i", "env", StringComparison.Ordinal) + "env -i sleep 3600 & echo up; sleep 3600";
        var outcome = await RunAsync(folder.Shell(script), new()
        {
            OnReady = identity => { keeper = identity; return Task.CompletedTask; },
            OnLine = line =>
            {
                family = [.. ProcessTable.CarriersOf(folder.RunToken).Select(process => ProcessIdentity.Of(process.Pid, process.StartTicks))];
                Assert.True(keeper!.Kill());
            },
        });
        Assert.True(family.Count >= 6, $"{family.Count}");
        Assert.DoesNotContain(family, process => process.IsAlive);
        Assert.Equal(ProcessEnd.KeeperLost, outcome.End);
        Assert.Null(outcome.ExitCode);
        Assert.Empty(outcome.Survivors);
        Assert.True(folder.NothingCarriesTheToken());
    }

    [Fact]
    public async Task X04_nothing_outlives_a_killed_orchestrator()
    {
        using var host = ContainedHost.Start(folder.Worktree, folder.RunToken, DaemonsWithAndWithoutToken + "touch up; trap '' TERM; sleep 3600; sleep 3600");
        try
        {
            Assert.True(await ContainedTestFolder.EventuallyAsync(() => File.Exists(Path.Combine(folder.Worktree, "up")), Token));
            var family = ProcessTable.CarriersOf(folder.RunToken); // keeper, program, daemons, and what is below the keeper without the token
            Assert.True(family.Count >= 5, $"{family.Count}");
            host.Kill();
            var began = Stopwatch.GetTimestamp();
            Assert.True(await ContainedTestFolder.EventuallyAsync(
                () => !family.Exists(process => ProcessIdentity.Of(process.Pid, process.StartTicks).IsAlive) && folder.NothingCarriesTheToken(), Token));
            TestContext.Current.TestOutputHelper!.WriteLine($"gone {Stopwatch.GetElapsedTime(began).TotalMilliseconds:F0} ms after the kill");
        }
        finally
        {
            host.Kill();
        }
    }

    [Fact]
    public async Task X04_a_sweep_ends_a_stopped_keeper_and_its_tree_after_a_killed_orchestrator()
    {
        using var host = ContainedHost.Start(folder.Worktree, folder.RunToken, DaemonsWithAndWithoutToken + "touch up; sleep 3600");
        try
        {
            Assert.True(await ContainedTestFolder.EventuallyAsync(() => File.Exists(Path.Combine(folder.Worktree, "up")), Token));
            var family = ProcessTable.CarriersOf(folder.RunToken).Select(process => ProcessIdentity.Of(process.Pid, process.StartTicks)).ToList();
            var keeper = family.Single(process => File.ReadAllText($"/proc/{process.Pid}/cmdline").Contains(Keeper.Argument, StringComparison.Ordinal));
            Assert.True(keeper.Kill(Native.SigStop));
            Assert.True(await ContainedTestFolder.EventuallyAsync(() => keeper.Look() == ProcessPresence.Stopped, Token));
            host.Kill();
            Assert.Empty(await ProcessSweep.KillByTokenAsync(folder.RunToken, TimeProvider.System, Token));
            Assert.DoesNotContain(family, process => process.IsAlive);
        }
        finally
        {
            host.Kill();
        }
    }

    /// <summary>The orchestrator is killed at whatever stage it has reached; the stages are told apart by what can be seen from outside.</summary>
    [Theory]
    [InlineData("keeper exists")]
    [InlineData("keeper is ready")]
    [InlineData("program exists")]
    [InlineData("program has written")]
    [InlineData("program has ended and a daemon holds its output")]
    public async Task X04_nothing_outlives_an_orchestrator_killed_at_any_stage(string stage)
    {
        using var host = ContainedHost.Start(folder.Worktree, folder.RunToken, "(setsid sh -c 'sleep 3600; :' &); echo up; exit 0");
        try
        {
            bool Has(string argument) => ProcessTable.CarriersOf(folder.RunToken).Exists(process => CommandOf(process.Pid).Contains(argument, StringComparison.Ordinal));
            var log = new FileInfo(Path.Combine(folder.Worktree, "host.log"));
            Assert.True(await ContainedTestFolder.EventuallyAsync(
                () =>
                {
                    log.Refresh();
                    return stage switch
                    {
                        "keeper exists" => !folder.NothingCarriesTheToken(),
                        "keeper is ready" => log.Exists,
                        "program exists" => Has("sleep 3600"),
                        "program has written" => log is { Exists: true, Length: > 0 },
                        _ => Has("sleep 3600") && !Has("exit 0"),
                    };
                },
                Token));
            host.Kill();
            Assert.True(await ContainedTestFolder.EventuallyAsync(folder.NothingCarriesTheToken, Token));
        }
        finally
        {
            host.Kill();
        }
    }

    [Fact]
    public async Task X04_nothing_outlives_an_orchestrator_that_was_stopped_in_a_flood_and_then_killed()
    {
        using var host = ContainedHost.Start(folder.Worktree, folder.RunToken, "yes 'a line that fills every pipe'");
        try
        {
            var identity = ProcessIdentity.Of(host.Id)!;
            Assert.True(await ContainedTestFolder.EventuallyAsync(() => File.Exists(Path.Combine(folder.Worktree, "host.log")), Token));
            Assert.True(identity.Kill(Native.SigStop));
            // The keeper now blocks while it writes to the pipe that nobody reads: its log stops growing.
            long before = -1, now = 0;
            Assert.True(await ContainedTestFolder.EventuallyAsync(
                () =>
                {
                    (before, now) = (now, new FileInfo(Path.Combine(folder.Worktree, "host.log")).Length);
                    return now > 0 && now == before;
                },
                Token));
            Assert.False(folder.NothingCarriesTheToken());
            host.Kill();
            Assert.True(await ContainedTestFolder.EventuallyAsync(folder.NothingCarriesTheToken, Token));
        }
        finally
        {
            host.Kill();
        }
    }

    [Fact]
    public async Task A_log_that_cannot_be_written_does_not_end_the_program_and_is_told()
    {
        var outcome = await RunAsync(folder.Shell("echo one; exit 5") with { LogPath = Path.Combine(folder.Root, "absent", "run.log") });
        Assert.Equal((ProcessEnd.Exited, 5, "one"), (outcome.End, outcome.ExitCode, outcome.Tail));
        Assert.Contains("log is incomplete", outcome.Problem, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Two_runs_at_once_do_not_touch_each_other()
    {
        using var other = new ContainedTestFolder();
        var up = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var stop = new CancellationTokenSource();
        var longer = ContainedProcess.RunAsync(
            other.Shell("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"), new() { OnLine = _ => up.TrySetResult() }, TimeProvider.System, stop.Token);
        await up.Task;
        Assert.Equal(0, (await RunAsync(folder.Shell(DaemonsWithAndWithoutToken + "true"))).ExitCode);
        Assert.False(longer.IsCompleted);
        await stop.CancelAsync();
        Assert.Equal(9, (await longer).ExitCode);
    }

    private static string CommandOf(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/cmdline").Replace('\0', ' ');
        }
        catch (IOException)
        {
            return ""; // ended meanwhile
        }
    }

    [Fact]
    public async Task Starting_under_a_keeper_is_measured()
    {
        var starts = new List<double>();
        var totals = new List<double>();
        long memory = 0;
        for (var run = 0; run < 15; run++)
        {
            var began = Stopwatch.GetTimestamp();
            var outcome = await RunAsync(folder.Shell("true"), new()
            {
                OnReady = keeper =>
                {
                    using var process = Process.GetProcessById(keeper.Pid);
                    memory = process.WorkingSet64;
                    return Task.CompletedTask;
                },
            });
            Assert.Equal(0, outcome.ExitCode);
            starts.Add(outcome.KeeperStart.TotalMilliseconds);
            totals.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
        }
        starts.Sort();
        totals.Sort();
        TestContext.Current.TestOutputHelper!.WriteLine(
            $"keeper ready: median {starts[7]:F0} ms, worst {starts[^1]:F0} ms; `true` from request to empty tree: median {totals[7]:F0} ms, worst {totals[^1]:F0} ms; keeper {memory >> 20} MiB");
    }

    [Fact]
    public async Task What_cannot_be_started_says_why()
    {
        var outcome = await RunAsync(folder.Shell("") with { Argv = ["no-such-program"] });
        Assert.Equal(ProcessEnd.NotStarted, outcome.End);
        Assert.Contains("no-such-program", outcome.Problem, StringComparison.Ordinal);
        outcome = await RunAsync(folder.Shell("true") with { WorkingDirectory = Path.Combine(folder.Root, "absent") });
        Assert.Equal(ProcessEnd.NotStarted, outcome.End);
        Assert.Contains("No such file", outcome.Problem, StringComparison.Ordinal);
        outcome = await RunAsync(folder.Shell("true") with { Keeper = new("/bin/false", []) });
        Assert.Equal(ProcessEnd.NotStarted, outcome.End);
        Assert.Contains("keeper", outcome.Problem, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_hook_that_throws_ends_the_run_and_is_thrown()
    {
        var marker = Path.Combine(folder.Worktree, "ran");
        await Assert.ThrowsAsync<TimeZoneNotFoundException>(() => RunAsync(folder.Shell("touch ran"), new() { OnReady = _ => throw new TimeZoneNotFoundException() }));
        Assert.False(File.Exists(marker));
        await Assert.ThrowsAsync<TimeZoneNotFoundException>(
            () => RunAsync(folder.Shell("echo up; sleep 3600"), new() { OnLine = _ => throw new TimeZoneNotFoundException() }));
        Assert.True(folder.NothingCarriesTheToken());
    }
}
