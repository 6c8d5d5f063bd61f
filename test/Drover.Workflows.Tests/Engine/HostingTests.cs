using Drover.TestKit;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Drover.Workflows.Tests.Engine;

public sealed class HostingTests
{
    [Fact]
    public async Task A_host_starts_runs_and_stops_the_engine_in_order()
    {
        using var folder = new TempFolder();
        var greeting = new Greeting("hello");
        var begun = new TaskCompletionSource();
        var greet = Workflow.Define<string>("greet", async context => await context.StepAsync("say", step =>
            Task.FromResult(step.Services.GetRequiredService<Greeting>().Text)));
        var wait = Workflow.Define<int>("wait", async context =>
        {
            await context.StepAsync("wait", async step =>
            {
                begun.SetResult();
                await Task.Delay(Timeout.Infinite, step.CancellationToken);
            });
            return 1;
        });
        HostApplicationBuilder builder = Host.CreateApplicationBuilder();
        builder.Logging.ClearProviders();
        builder.Services.AddSingleton(greeting);
        builder.Services.AddDroverWorkflows(options => options.UseSqlite(folder.File("drover.db")).AddWorkflow(greet).AddWorkflow(wait));
        using IHost host = builder.Build();
        await host.StartAsync();
        var client = host.Services.GetRequiredService<WorkflowClient>();
        Assert.Equal("hello", await (await client.StartAsync(greet)).ResultAsync());
        WorkflowHandle<int> waiting = await client.StartAsync(wait);
        await begun.Task;
        await host.StopAsync();

        // Interrupted, not ended; the executor has gone and a start is refused.
        Assert.Equal(WorkflowState.Enqueued, (await waiting.StatusAsync())!.State);
        Assert.Equal(0, await client.ReadAsync(s => s.Number("SELECT count(*) FROM drover_executors")));
        Assert.Equal(ErrorCode.Unavailable, (await Assert.ThrowsAsync<DroverException>(() => client.StartAsync(greet))).Code);
        Assert.DoesNotContain(Directory.GetFiles(folder.Path), f => f.Contains(".executor-", StringComparison.Ordinal));
        await ((IAsyncDisposable)host).DisposeAsync();
    }

    private sealed record Greeting(string Text);
}
