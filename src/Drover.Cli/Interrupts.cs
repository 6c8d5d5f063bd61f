using System.Runtime.InteropServices;

namespace Drover.Cli;

/// <summary>
/// What Ctrl+C and SIGTERM do to a run. First Ctrl+C on a terminal: no new work. Second, SIGTERM, SIGHUP, or no terminal: the agents
/// are stopped after their work is saved. Third: now. Every one leaves a state that <c>resume</c> continues.
/// </summary>
internal sealed class Interrupts : IDisposable
{
    // Ten seconds from the signal to the exit, whatever hangs.
    private static readonly TimeSpan Bound = TimeSpan.FromSeconds(9);

    // Outlives this object: closing the engine after the run must not take longer either.
    private static Timer? s_watchdog;

    private readonly PosixSignalRegistration[] _registrations;
    private readonly RunSession _session;
    private readonly Caller _caller;
    private readonly bool _attended;
    private int _level;

    public Interrupts(RunSession session, Caller caller)
    {
        (_session, _caller) = (session, caller);
        // Without a terminal nobody can press again.
        _attended = !Console.IsInputRedirected || !Console.IsErrorRedirected;
        _registrations =
        [
            PosixSignalRegistration.Create(PosixSignal.SIGINT, context => Handle(context, _attended ? 1 : 2)),
            PosixSignalRegistration.Create(PosixSignal.SIGTERM, context => Handle(context, 2)),
            PosixSignalRegistration.Create(PosixSignal.SIGHUP, context => Handle(context, 2)),
        ];
    }

    private void Handle(PosixSignalContext context, int least)
    {
        context.Cancel = true;
        int level;
        lock (_registrations)
            level = _level = Math.Max(_level + 1, least);
        switch (level)
        {
            case 1:
                _ = TryAsync(async () => _caller.Output.Say($"no new work; {await _session.RequestDrainAsync()} running; press again to stop them; their work is kept"));
                break;
            case 2:
                _caller.Output.Say("stopping the agents; their work is kept; `drover resume` continues");
                // The keepers end what is left when this process is gone.
                s_watchdog = new Timer(_ => Exit(), null, Bound, Timeout.InfiniteTimeSpan);
                _ = TryAsync(_session.StopAgentsAsync);
                break;
            default:
                Exit();
                break;
        }
    }

    private void Exit()
    {
        // Lines above a live display are written with its next picture, and there will be none.
        _caller.Output.EndLive();
        _caller.Output.Say("stopped at once; `drover resume` continues");
        Environment.Exit(ExitCodes.Interrupted);
    }

    // Nobody awaits a signal's work: what goes wrong is said, the run itself goes on, and a third signal still ends it.
    private async Task TryAsync(Func<Task> work)
    {
        try
        {
            await work();
        }
        catch (Exception e)
        {
            _caller.Output.Say($"that did not work: {e.Message}; press again to exit");
        }
    }

    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
            registration.Dispose();
    }
}
