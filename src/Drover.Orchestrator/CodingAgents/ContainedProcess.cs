using System.Runtime.InteropServices;
using Drover.Workflows;
using Microsoft.Win32.SafeHandles;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// Runs a program under a keeper and watches it: clocks, stop requests, output. When the returned task completes,
/// nothing of the program's tree is left, or the survivors are named.
/// </summary>
internal sealed class ContainedProcess
{
    private const int TailCharacters = 64 * 1024;
    private static readonly TimeSpan KeeperStartLimit = TimeSpan.FromSeconds(30), KeeperEndLimit = TimeSpan.FromSeconds(20), LateTimer = TimeSpan.FromSeconds(10);

    private readonly ContainedProcessSpec spec;
    private readonly ProcessHooks hooks;
    private readonly TimeProvider time;
    private readonly Lock gate = new();
    private readonly Queue<string> tail = new();
    private readonly TaskCompletionSource<KeeperEvent?> ready = New(), started = New(), ended = New(), gone = New();
    private readonly ITimer startTimer, silenceTimer, totalTimer, keeperTimer;
    private int tailLength;
    private long silentSince;
    private bool anyOutput, goSent;
    private ProcessEnd? asked;
    private Exception? hookError;
    private FileStream? orders;
    private int keeperPid;
    private ProcessIdentity? keeper;

    private ContainedProcess(ContainedProcessSpec spec, ProcessHooks hooks, TimeProvider time)
    {
        this.spec = spec;
        this.hooks = hooks;
        this.time = time;
        startTimer = Timer(() => End(ProcessEnd.StartClock, "stop"));
        silenceTimer = Timer(Silent);
        totalTimer = Timer(() => End(ProcessEnd.TotalClock, "stop"));
        keeperTimer = Timer(() => keeper?.Kill()); // a keeper that does not answer: the loss is then dealt with as any other
    }

    /// <summary>
    /// Runs the program. Cancelling <paramref name="cancellationToken"/> stops it (SIGTERM, grace, SIGKILL) and returns its outcome;
    /// it throws only what a hook threw, or <see cref="DroverException"/> when no process can be started at all.
    /// </summary>
    internal static async Task<ProcessOutcome> RunAsync(
        ContainedProcessSpec spec, ProcessHooks hooks, TimeProvider time, CancellationToken cancellationToken)
    {
        if (!OperatingSystem.IsLinux())
            throw new DroverException(ErrorCode.Unavailable, "agents and gates can be run on Linux only; on Windows use WSL");
        var run = new ContainedProcess(spec, hooks, time);
        try
        {
            return await run.RunAsync(cancellationToken);
        }
        finally
        {
            run.startTimer.Dispose();
            run.silenceTimer.Dispose();
            run.totalTimer.Dispose();
            run.keeperTimer.Dispose();
        }
    }

    private async Task<ProcessOutcome> RunAsync(CancellationToken cancellationToken)
    {
        var file = ProgramPath.Resolve(spec.Argv[0], spec.Environment.GetValueOrDefault("PATH"), spec.WorkingDirectory);
        if (file is null)
            return new(ProcessEnd.NotStarted) { Problem = $"{spec.Argv[0]} is not an executable program on the PATH of the run" };
        if (cancellationToken.IsCancellationRequested || hooks.Kill.IsCancellationRequested)
            return new(ProcessEnd.Stopped) { Problem = "stopped before it was started" };
        var began = time.GetTimestamp();
        Arm(keeperTimer, KeeperStartLimit);
        StartKeeper(file);
        var up = await ready.Task;
        Disarm(keeperTimer);
        var keeperStart = time.GetElapsedTime(began);
        began = time.GetTimestamp();
        if (up is { Kind: KeeperEventKind.Ready })
        {
            await Guarded(() => hooks.OnReady?.Invoke(keeper!));
            using var soft = cancellationToken.UnsafeRegister(_ => End(ProcessEnd.Stopped, "stop"), null);
            using var hard = hooks.Kill.UnsafeRegister(_ => End(ProcessEnd.Stopped, "kill"), null);
            if (asked is null)
            {
                ArmClocks();
                goSent = true;
                Order("go");
            }
            else
            {
                CloseOrders(); // the keeper leaves without having started anything
            }
            if (await started.Task is { Kind: KeeperEventKind.Started } child)
                await Guarded(() => hooks.OnStarted?.Invoke(keeper!, ProcessIdentity.Of(child.Pid, child.StartTicks)));
            await ended.Task;
        }
        CloseOrders();
        Arm(keeperTimer, KeeperEndLimit);
        await gone.Task;
        var outcome = await FinishAsync() with { KeeperStart = keeperStart, Duration = time.GetElapsedTime(began) };
        return hookError is null ? outcome : throw hookError;
    }

    private async Task<ProcessOutcome> FinishAsync()
    {
        if (await ended.Task is { Kind: KeeperEventKind.Failed } failed)
            return new(ProcessEnd.NotStarted) { Problem = failed.Text };
        if (await ended.Task is { } end)
        {
            return new(asked ?? ProcessEnd.Exited)
            {
                ExitCode = end.ExitCode,
                Signal = end.Signal,
                OutputBytes = end.Received,
                LeftOutBytes = end.LeftOut,
                Tail = TailText(),
                LeftoversEnded = end.Ended,
                Survivors = end.Survivors,
                Problem = end.Text.Length > 0 ? $"the log is incomplete: {end.Text}" : null,
            };
        }
        if (!goSent && asked is not null)
            return new(ProcessEnd.Stopped) { Problem = "stopped before it was started" };
        if (!goSent)
            return new(ProcessEnd.NotStarted) { Problem = $"the keeper did not start{LastNoise()}; is Drover installed completely?" };
        // Real time whatever the clock of the run: these are real processes. No token: a run is not over before its tree is.
        var survivors = await ProcessSweep.KillByTokenAsync(spec.RunToken, TimeProvider.System, CancellationToken.None);
        if (await started.Task is { Kind: KeeperEventKind.Started } child)
        {
            // Members of its session that wiped their environment carry no token.
            var leader = ProcessIdentity.Of(child.Pid, child.StartTicks);
            survivors = [.. survivors.Union(await ProcessSweep.KillSessionAsync(leader, TimeProvider.System, CancellationToken.None))];
        }
        return new(ProcessEnd.KeeperLost)
        {
            Tail = TailText(),
            Survivors = survivors,
            Problem = $"the keeper ended without a report, so the outcome is unknown{LastNoise()}",
        };
    }

    private void StartKeeper(string file)
    {
        var input = Native.Pipe();
        var output = Native.Pipe();
        try
        {
            string[] argv = [spec.Keeper.FileName, .. spec.Keeper.Arguments, Keeper.Argument];
            (keeperPid, var errno) = Spawn.Start(
                spec.Keeper.FileName, argv, KeeperEnvironment(), "/", input.Read, output.Write, output.Write);
            if (keeperPid == 0)
            {
                _ = Native.Close(input.Write);
                _ = Native.Close(output.Read);
                throw new DroverException(ErrorCode.External,
                    $"cannot start the keeper {spec.Keeper.FileName}: {Marshal.GetPInvokeErrorMessage(errno)}; is Drover installed completely?");
            }
        }
        finally
        {
            _ = Native.Close(input.Read);
            _ = Native.Close(output.Write);
        }
        keeper = ProcessIdentity.Of(keeperPid);
        orders = new FileStream(new SafeFileHandle(input.Write, true), FileAccess.Write, 0);
        var events = new FileStream(new SafeFileHandle(output.Read, true), FileAccess.Read, 0);
        new Thread(() => ReadEvents(events), 512 * 1024) { IsBackground = true, Name = "keeper events" }.Start();
        var what = new KeeperSpec(
            Environment.ProcessId, spec.RunToken, file, spec.Argv, spec.WorkingDirectory,
            new Dictionary<string, string>(spec.Environment, StringComparer.Ordinal) { [ProcessTable.TokenName] = spec.RunToken },
            spec.StdinFile, spec.LogPath, spec.OutputCap, spec.LineCap, (int)spec.StopGrace.TotalMilliseconds, spec.Secrets).ToLine();
        // On a thread of its own: a keeper that hangs in its start would otherwise block us here, past every clock.
        new Thread(() => Order(what), 256 * 1024) { IsBackground = true, Name = "keeper spec" }.Start();
    }

    /// <summary>The keeper needs the runtime's settings and nothing else; the target's environment comes in the spec.</summary>
    private Dictionary<string, string> KeeperEnvironment()
    {
        var environment = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            [ProcessTable.KeeperTokenName] = spec.RunToken,
            ["DOTNET_EnableDiagnostics"] = "0", // quicker start, and no socket left in /tmp by a SIGKILL
            ["DOTNET_TieredPGO"] = "0",
        };
        foreach (var name in (string[])["PATH", "HOME", "TMPDIR", "DOTNET_ROOT", "LD_LIBRARY_PATH", "DOTNET_BUNDLE_EXTRACT_BASE_DIR"])
        {
            if (Environment.GetEnvironmentVariable(name) is { } value)
                environment[name] = value;
        }
        return environment;
    }

    private void ReadEvents(FileStream events)
    {
        try
        {
            using (events)
                KeeperLine.ReadAll(events, line => Take(KeeperEvent.FromLine(line), line));
        }
        catch (IOException)
        {
            // Means the same as its end.
        }
        _ = Native.WaitPid(keeperPid, out _, 0); // it has closed its output, so it is ending
        ready.TrySetResult(null);
        started.TrySetResult(null);
        ended.TrySetResult(null);
        gone.TrySetResult(null);
    }

    private void Take(KeeperEvent? what, ReadOnlyMemory<byte> line)
    {
        switch (what?.Kind)
        {
            case null:
                Remember(KeeperLine.AsText(line)); // the runtime's own complaint
                break;
            case KeeperEventKind.Ready:
                ready.TrySetResult(what);
                break;
            case KeeperEventKind.Started:
                started.TrySetResult(what);
                break;
            case KeeperEventKind.Line:
                Heard();
                Remember(what.Text);
                Call(() => hooks.OnLine?.Invoke(new(what.Stream == 2, what.Text, what.Cut)));
                break;
            case KeeperEventKind.Activity:
                Heard();
                break;
            case KeeperEventKind.Failed or KeeperEventKind.End:
                ended.TrySetResult(what);
                ready.TrySetResult(what);
                started.TrySetResult(what);
                break;
        }
    }

    private void ArmClocks()
    {
        Arm(startTimer, spec.Clocks.Start);
        ArmSilence();
        Arm(totalTimer, spec.Clocks.Total);
    }

    private void ArmSilence()
    {
        Volatile.Write(ref silentSince, time.GetTimestamp());
        Arm(silenceTimer, spec.Clocks.Silence);
    }

    private void Silent()
    {
        // A timer that is late means that we stood still (Ctrl+Z, SIGSTOP): output may lie in the pipe, unread.
        if (time.GetElapsedTime(Volatile.Read(ref silentSince)) > spec.Clocks.Silence + LateTimer)
            ArmSilence();
        else
            End(ProcessEnd.SilenceClock, "stop");
    }

    private void Heard()
    {
        if (!anyOutput)
        {
            anyOutput = true;
            Disarm(startTimer);
        }
        ArmSilence();
    }

    /// <summary>The first reason to end a run stays its reason; a later kill still hastens it.</summary>
    private void End(ProcessEnd reason, string order)
    {
        lock (gate)
            asked ??= reason;
        Arm(keeperTimer, spec.StopGrace + KeeperEndLimit);
        Order(order);
    }

    private void Order(string order) => Order(System.Text.Encoding.ASCII.GetBytes(order + "\n"));

    private void Order(byte[] line)
    {
        try
        {
            lock (orders!)
                orders.Write(line);
        }
        catch (Exception error) when (error is IOException or ObjectDisposedException)
        {
            // The keeper has ended; the reading thread sees that and the outcome says so.
        }
    }

    private void CloseOrders()
    {
        lock (orders!)
            orders.Dispose();
    }

    private void Remember(string line)
    {
        lock (tail)
        {
            tail.Enqueue(line);
            for (tailLength += line.Length + 1; tailLength > TailCharacters && tail.Count > 1;)
                tailLength -= tail.Dequeue().Length + 1;
        }
    }

    private string TailText()
    {
        lock (tail)
            return string.Join('\n', tail);
    }

    private string LastNoise()
    {
        lock (tail)
            return tail.Count == 0 ? "" : $" (last output: {TerminalText.SanitizeLine(tail.Last(), 200)})";
    }

    private async Task Guarded(Func<Task?> hook)
    {
        try
        {
            if (hook() is { } work)
                await work;
        }
        catch (Exception error)
        {
            Failed(error);
        }
    }

    private void Call(Action hook)
    {
        try
        {
            hook();
        }
        catch (Exception error)
        {
            Failed(error);
        }
    }

    private void Failed(Exception error)
    {
        hookError ??= error;
        End(ProcessEnd.Stopped, "kill");
    }

    private ITimer Timer(Action act) => time.CreateTimer(_ => act(), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);

    private static void Arm(ITimer timer, TimeSpan? due) => timer.Change(due ?? Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);

    private static void Disarm(ITimer timer) => Arm(timer, null);

    private static TaskCompletionSource<KeeperEvent?> New() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}
